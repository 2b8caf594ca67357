"""Which of several methods is better on new photos, from runs' folders or from anybody's tables. Nothing here needs torch."""
