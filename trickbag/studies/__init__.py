"""The study: which tricks help on these photos, by how much, how sure, at what price."""
