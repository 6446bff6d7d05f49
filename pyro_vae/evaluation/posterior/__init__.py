"""The quality of the amortized posterior and what the latents carry."""
