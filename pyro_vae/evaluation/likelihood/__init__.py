"""Estimates of the evidence and their diagnostics."""
