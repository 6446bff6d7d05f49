"""Sources that cannot be read, and what to do instead."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pyro_vae.data.readers import READERS, is_path
from pyro_vae.data.readers.reader import ending

__all__ = ["refuse"]

#: What to do about files of other programs, by ending.
FILES = {
    (".xlsx", ".xls", ".ods"): "Save the sheet as .csv",
    (".mat",): "Read it by scipy.io.loadmat and pass the array",
    (".pkl", ".pickle", ".joblib", ".pt", ".pth"): "Such files can run code: load it yourself and pass the object",
    (".json", ".jsonl", ".ndjson"): "Read it by pandas.read_json and pass the frame",
    (".zip", ".tar", ".tgz", ".rar", ".7z"): "Unpack it and pass the folder or file",
    (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"): "Pass the folder of the images",
    (".wav", ".mp3", ".flac", ".mp4", ".avi", ".mov"): "Decode it and pass an array with one example per row",
    (".txt", ".dat", ".data"): "Save it as .csv with the names of the columns in the first line",
    (".rds", ".rdata", ".sav", ".dta", ".sas7bdat"): "Save it as .csv or .parquet",
}
#: What to do about objects, by the name of a class.
OBJECTS = {
    "Dataset": "Pass one of its splits, such as its `.train`",
    "DatasetDict": "Pass one of its splits as a frame: splits['train'].to_pandas()",
    "generator": "Wrap it in a torch.utils.data.IterableDataset, or pass a list of rows",
    "tuple": "Pass x alone; fit and the tasks take a tuple (x, context)",
    "set": "Pass a list of rows, which have an order",
    "MuData": "Pass one of its modalities, such as its `.mod['rna']`",
}


def refuse(name: str, source: Any) -> Exception:
    """Return the error for a source that no reader takes.

    Example:
        >>> print(refuse("source", "numbers.xlsx"))
        source: expected a file that can be read, got numbers.xlsx. Save the sheet as .csv
    """
    if is_path(source):
        return refuse_path(name, source)
    hint = next((OBJECTS[cls.__name__] for cls in type(source).__mro__ if cls.__name__ in OBJECTS), None)
    hint = hint or "Convert it to an array with one example per row"
    return TypeError(
        f"{name}: expected a path, tensor, numpy array, memmap, data frame, torch Dataset or DataLoader, or a tuple "
        f"of arrays (x, context), got {type(source).__name__}. {hint}"
    )


def refuse_path(name: str, path: Any) -> Exception:
    """Return the error for a path that no reader takes."""
    known = [e for reader in READERS for e in reader.endings]
    kind = ending(path)
    hint = next((hint for endings, hint in FILES.items() if kind in endings), None)
    where = "" if name == str(path) else f"{name}: "
    if hint is not None:
        return ValueError(f"{where or f'{name}: '}expected a file that can be read, got {path}. {hint}")
    near = get_close_matches(kind, known, n=1)
    also = f" (did you mean {near[0]}?)" if near else ""
    error = ValueError if Path(path).suffix else TypeError
    return error(f"{where or f'{name}: '}expected a file that ends in {', '.join(known)}, got {str(path)!r}{also}")
