"""A run as names and numbers: parts by name, and the run folder."""
