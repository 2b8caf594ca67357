"""The statistics of studies and of anybody's tables: pure functions of arrays, on numpy and scipy alone."""
