"""How close samples of a program are to test data and to training data."""
