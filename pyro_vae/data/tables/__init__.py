"""Column types of a table: each knows its units, the features an encoder sees and the distribution of its values."""

from pyro_vae.data.tables.cells import Cells, Numbers
from pyro_vae.data.tables.column import Column
from pyro_vae.data.tables.dates import Dates, Durations
from pyro_vae.data.tables.features import Features
from pyro_vae.data.tables.infer import infer
from pyro_vae.data.tables.labels import Binary, Categorical, Ordinal
from pyro_vae.data.tables.numbers import Count, Integer, Positive, Real
from pyro_vae.data.tables.table import Table, schema
from pyro_vae.data.tables.written import Written

__all__ = [
    "Binary",
    "Categorical",
    "Cells",
    "Column",
    "Count",
    "Dates",
    "Durations",
    "Features",
    "Integer",
    "Numbers",
    "Ordinal",
    "Positive",
    "Real",
    "Table",
    "Written",
    "infer",
    "schema",
]
