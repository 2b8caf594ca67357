"""Where a person meets the program: the verbs, the only place that prints, the table of a study under way."""
