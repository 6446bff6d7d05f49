"""Networks: any callable ``net(in_shape, out_shape)`` that returns a module, and ready ones.

A network maps ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.
"""

from pyro_vae.nets.contract import Net, Shape, build
from pyro_vae.nets.conv import ConvDecoder, ConvEncoder
from pyro_vae.nets.missing import SetEncoder, ZeroImputed
from pyro_vae.nets.mlp import MLP
from pyro_vae.nets.topics import BagEncoder, MixtureOfTopics, ProductOfTopics

__all__ = [
    "MLP",
    "BagEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "MixtureOfTopics",
    "Net",
    "ProductOfTopics",
    "SetEncoder",
    "Shape",
    "ZeroImputed",
    "build",
]
