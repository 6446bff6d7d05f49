"""Tables in text files, compressed or not."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from pyro_vae.data import files
from pyro_vae.data.readers.columns import TABLE_OPTIONS
from pyro_vae.data.readers.reader import Content, Options, Reader, ending, ends_in, needs

__all__ = ["TEXT"]

ENDINGS = tuple(f"{kind}{packed}" for kind in (".csv", ".tsv") for packed in ("", ".gz", ".zst"))


def load(name: str, source: Any, options: Options) -> Content:
    """Read the cells of a text file by column."""
    return Content(columns=files.parse_csv(name, unpacked(name, Path(source))), text=True)


def unpacked(name: str, path: Path) -> bytes:
    """Return the bytes of a file, after decompression."""
    content = path.read_bytes()
    packed = ending(path)[4:]
    if not content or not packed:
        return content
    try:
        if packed == ".gz":
            return gzip.decompress(content)
        zstandard = needs(name, "zstandard", "tables")
        with zstandard.ZstdDecompressor().stream_reader(content) as stream:
            return stream.read()
    except ImportError:
        raise
    except Exception as error:  # each library has its own errors
        raise ValueError(f"{name}: expected a {packed} file, got damaged or other bytes ({error})") from error


TEXT = Reader(
    source="`.csv` and `.tsv`, also `.gz` and `.zst` of them: UTF-8 text, names of the columns in the first line",
    becomes="a table; commas, semicolons or tabs between cells",
    takes=ends_in(ENDINGS),
    load=load,
    options=TABLE_OPTIONS,
    endings=ENDINGS,
    extra="tables (for `.zst`)",
)
