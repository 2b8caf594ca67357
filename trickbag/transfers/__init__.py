"""Detectors and segmenters on the body of a classifier."""
