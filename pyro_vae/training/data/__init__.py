"""Batches, their order, and bringing them to the device."""
