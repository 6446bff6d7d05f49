"""Networks: any callable ``net(in_shape, out_shape)`` that returns a module, and ready-made ones.

A network maps ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.
"""

from pyro_vae.nets.bag_encoder import BagEncoder
from pyro_vae.nets.contract import Net, NetBuilder, build
from pyro_vae.nets.conv import ConvDecoder, ConvEncoder
from pyro_vae.nets.label_embedding import LabelEmbedding
from pyro_vae.nets.log_counts import LogCounts
from pyro_vae.nets.mlp import MLP
from pyro_vae.nets.recurrent import RecurrentEncoder
from pyro_vae.nets.resnet import ResNetDecoder, ResNetEncoder
from pyro_vae.nets.set_encoder import SetEncoder
from pyro_vae.nets.shapes import Shape
from pyro_vae.nets.temporal_conv import TemporalConvEncoder
from pyro_vae.nets.topics import MixtureOfTopics, ProductOfTopics
from pyro_vae.nets.transformer import TransformerEncoder
from pyro_vae.nets.zero_imputed import ZeroImputed

__all__ = [
    "MLP",
    "BagEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "LabelEmbedding",
    "LogCounts",
    "MixtureOfTopics",
    "Net",
    "NetBuilder",
    "ProductOfTopics",
    "RecurrentEncoder",
    "ResNetDecoder",
    "ResNetEncoder",
    "SetEncoder",
    "Shape",
    "TemporalConvEncoder",
    "TransformerEncoder",
    "ZeroImputed",
    "build",
]
