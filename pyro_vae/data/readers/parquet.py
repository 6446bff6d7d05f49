"""Files of pyarrow: Parquet and Feather."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyro_vae.data.readers.columns import TABLE_OPTIONS, of_arrow
from pyro_vae.data.readers.reader import Content, Options, Reader, ending, ends_in, needs

__all__ = ["PARQUET"]

ENDINGS = (".parquet", ".feather")


def load(name: str, source: Any, options: Options) -> Content:
    """Read a table of pyarrow."""
    kind = ending(source)
    module = needs(name, f"pyarrow.{kind[1:]}", "tables")
    with Path(source).open("rb") as file:  # a missing file is an OSError that names it
        try:
            return Content(columns=of_arrow(module.read_table(file)))
        except Exception as error:  # pyarrow raises errors of many types for damaged files
            raise ValueError(f"{name}: expected a {kind} file, got a damaged or other file ({error})") from error


PARQUET = Reader(
    source="`.parquet` and `.feather`",
    becomes="a table; categories, booleans, dates and missing values keep their meaning",
    takes=ends_in(ENDINGS),
    load=load,
    options=TABLE_OPTIONS,
    endings=ENDINGS,
    extra="tables",
)
