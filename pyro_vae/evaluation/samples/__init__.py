"""Samples of a program: simulated data, and how close samples are to test data and to training data."""
