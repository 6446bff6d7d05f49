"""Uses of a trained VAE: generate, impute, classify, detect anomalies, represent, compress and export.

Calls from several threads run one after the other and return the same results as in one thread.
"""

from pyro_vae.tasks.aggregate_posterior import AggregatePosterior
from pyro_vae.tasks.classify import Classification, classify, hide_labels, labelled_batches
from pyro_vae.tasks.compress import Compressor
from pyro_vae.tasks.compressed import Compressed, CompressionError
from pyro_vae.tasks.detect import Detector, attribution
from pyro_vae.tasks.export import export
from pyro_vae.tasks.export_formats import ExportFormat, Onnx, TorchExport
from pyro_vae.tasks.forecast import Forecast, forecast
from pyro_vae.tasks.generate import generate, reconstruct, tempered
from pyro_vae.tasks.imputation import Imputation, fill
from pyro_vae.tasks.impute import impute, pseudo_gibbs
from pyro_vae.tasks.interpolate import geometric, interpolate, linear, spherical, traverse
from pyro_vae.tasks.represent import Clusters, Embedding, cluster, embed, init_clusters
from pyro_vae.tasks.scores import (
    ImportanceWeighted,
    InputComplexity,
    LikelihoodRegret,
    NegativeBound,
    Reconstruction,
    Score,
    Typicality,
)

__all__ = [
    "AggregatePosterior",
    "Classification",
    "Clusters",
    "Compressed",
    "CompressionError",
    "Compressor",
    "Detector",
    "Embedding",
    "ExportFormat",
    "Forecast",
    "ImportanceWeighted",
    "Imputation",
    "InputComplexity",
    "LikelihoodRegret",
    "NegativeBound",
    "Onnx",
    "Reconstruction",
    "Score",
    "TorchExport",
    "Typicality",
    "attribution",
    "classify",
    "cluster",
    "embed",
    "export",
    "fill",
    "forecast",
    "generate",
    "geometric",
    "hide_labels",
    "impute",
    "init_clusters",
    "interpolate",
    "labelled_batches",
    "linear",
    "pseudo_gibbs",
    "reconstruct",
    "spherical",
    "tempered",
    "traverse",
]
