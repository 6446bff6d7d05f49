"""A VAE of several modalities, and the joint posteriors that it can have."""

from pyro_vae.programs.multimodal.joint import Joint
from pyro_vae.programs.multimodal.mixture_of_experts import MixtureOfExperts
from pyro_vae.programs.multimodal.mixture_of_products import MixtureOfProducts
from pyro_vae.programs.multimodal.modality_subsets import modality_subsets
from pyro_vae.programs.multimodal.multimodal import Multimodal
from pyro_vae.programs.multimodal.product_of_experts import ProductOfExperts

__all__ = ["Joint", "MixtureOfExperts", "MixtureOfProducts", "Multimodal", "ProductOfExperts", "modality_subsets"]
