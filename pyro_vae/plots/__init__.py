"""Every figure of the library, each a matplotlib ``Figure`` that knows nothing of pyplot or of a backend."""

from pyro_vae.plots.comparisons import comparison, training_comparison
from pyro_vae.plots.curves import training_curve
from pyro_vae.plots.images import image_grid, is_image, reconstructions, vectors
from pyro_vae.plots.latents import latent_map

__all__ = [
    "comparison",
    "image_grid",
    "is_image",
    "latent_map",
    "reconstructions",
    "training_comparison",
    "training_curve",
    "vectors",
]
