"""Helpers that know nothing about models: argument checks, random state, devices, progress bars, files."""
