"""What a trained VAE is used for: new data, missing entries, anomalies, representations and compression."""

from pyro_vae.tasks.aggregate_posterior import AggregatePosterior
from pyro_vae.tasks.attribution import attribution
from pyro_vae.tasks.classify import Classification, classify, hide_labels, labelled_batches
from pyro_vae.tasks.compress import Compressor
from pyro_vae.tasks.container import Compressed, CompressionError
from pyro_vae.tasks.detect import Detector, ImportanceWeighted, NegativeBound, Reconstruction, Score
from pyro_vae.tasks.detect_corrections import InputComplexity, LikelihoodRegret, Typicality
from pyro_vae.tasks.fill import fill
from pyro_vae.tasks.generate import generate, tempered
from pyro_vae.tasks.imputation import Imputation
from pyro_vae.tasks.impute import impute
from pyro_vae.tasks.paths import geometric, interpolate, linear, spherical, traverse
from pyro_vae.tasks.pseudo_gibbs import pseudo_gibbs
from pyro_vae.tasks.reconstruct import reconstruct
from pyro_vae.tasks.represent import Clusters, Embedding, cluster, embed, init_clusters

__all__ = [
    "AggregatePosterior",
    "Classification",
    "Clusters",
    "Compressed",
    "CompressionError",
    "Compressor",
    "Detector",
    "Embedding",
    "ImportanceWeighted",
    "Imputation",
    "InputComplexity",
    "LikelihoodRegret",
    "NegativeBound",
    "Reconstruction",
    "Score",
    "Typicality",
    "attribution",
    "classify",
    "cluster",
    "embed",
    "fill",
    "generate",
    "geometric",
    "hide_labels",
    "impute",
    "interpolate",
    "labelled_batches",
    "linear",
    "init_clusters",
    "pseudo_gibbs",
    "reconstruct",
    "spherical",
    "tempered",
    "traverse",
]
