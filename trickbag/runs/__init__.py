"""A training from what was asked to the files of its result, and what becomes of it: forecasts, scores, a classifier."""
