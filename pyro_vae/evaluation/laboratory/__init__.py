"""The estimator laboratory: bias, variance and cost of gradient estimators, and what they train."""
