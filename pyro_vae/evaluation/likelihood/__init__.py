"""Estimates of log p(x): importance sampling from the guide, and annealing, which does not use the guide."""
