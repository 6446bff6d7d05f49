"""The amortized posterior: posterior means, what the latents encode, inference gaps, and calibration."""
