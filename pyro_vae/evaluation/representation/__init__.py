"""The quality of representations."""
