"""The types of the columns of a table: what each holds, in which units, and which family describes it."""

from pyro_vae.data.tables.features import Features
from pyro_vae.data.tables.infer import infer, named, schema
from pyro_vae.data.tables.types import Binary, Categorical, Column, Count, Ordinal, Positive, Real

__all__ = [
    "Binary",
    "Categorical",
    "Column",
    "Count",
    "Features",
    "Ordinal",
    "Positive",
    "Real",
    "infer",
    "named",
    "schema",
]
