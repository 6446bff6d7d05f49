"""Helpers without a model in them: validation, random state, devices, progress bars, cached tensors."""
