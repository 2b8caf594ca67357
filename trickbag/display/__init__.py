"""What people see of long work and of its results: the only place that prints."""
