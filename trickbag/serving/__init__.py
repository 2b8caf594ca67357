"""Trained runs behind an address: a page to drop photos on, and the same for programs."""
