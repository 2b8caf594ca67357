"""Measured figures, each with its command, date, machine and versions."""
