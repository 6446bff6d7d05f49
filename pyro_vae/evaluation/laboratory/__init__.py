"""Comparing estimators: bias, variance, cost, and what they train."""
