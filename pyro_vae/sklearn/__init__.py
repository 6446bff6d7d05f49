"""Estimators for scikit-learn: a VAE as a transformer, a density and an imputer. Requires the extra ``sklearn``."""

try:
    import sklearn.base  # noqa: F401
except ImportError as error:
    raise ImportError("pyro_vae.sklearn needs scikit-learn: pip install pyro-vae[sklearn]") from error

from pyro_vae.sklearn.density import VAEDensity
from pyro_vae.sklearn.imputer import VAEImputer
from pyro_vae.sklearn.transformer import VAETransformer

__all__ = ["VAEDensity", "VAEImputer", "VAETransformer"]
