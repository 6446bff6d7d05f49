"""A run as names and numbers: parts by name, the run folder, the data of a run, and its results."""
