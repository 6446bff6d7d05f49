"""Column types of a table: each knows its units, the features an encoder sees and the distribution of its values."""

from pyro_vae.data.tables.column import Column
from pyro_vae.data.tables.features import Features
from pyro_vae.data.tables.table import Table, infer, named, schema
from pyro_vae.data.tables.types import Binary, Categorical, Count, Ordinal, Positive, Real

__all__ = [
    "Binary",
    "Categorical",
    "Column",
    "Count",
    "Features",
    "Ordinal",
    "Positive",
    "Real",
    "Table",
    "infer",
    "named",
    "schema",
]
