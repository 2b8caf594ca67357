"""What everything stands on: files, spellings, keyed draws, state, signals, sentences."""
