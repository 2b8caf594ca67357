"""Pictures and pages from what the store holds."""
