"""Folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.readers.reader import Content, Options, Reader, is_path, needs
from pyro_vae.data.tables.values import objects

__all__ = ["IMAGES"]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
#: Sub-folders with these names are parts of a data set, not labels.
PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}
#: What images of each mode of pillow are read as: grey levels or colours.
MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB"}
WORDS = {"L": "grey", "RGB": "in colour"}


def load(name: str, source: Any, options: Options) -> Content:
    """Read the images in a folder in the order of their names; sub-folders are labels."""
    folder = Path(source)
    paths, labels = found_in(name, folder)
    size = as_size(options.size)
    images: np.ndarray | None = None
    first = ""
    resized = 0
    for i, path in enumerate(paths):
        image, mode, own = pixels(path, size)
        what = f"{WORDS[mode]}, {own[0]} x {own[1]}"
        resized += size is not None and own != size
        if images is None:
            first, images = what, np.empty((len(paths), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            same = image.ndim == images.ndim - 1
            way = "Pass a size (height, width) to resize all" if same else "Convert them to one mode"
            raise ValueError(
                f"{name}: expected images of one size and mode, got {paths[0].name} ({first}) and "
                f"{path.name} ({what}). {way}"
            )
        images[i] = image
    notes = [f"images: {len(paths):,} files, {first}"]
    notes += [f"resized: {resized:,} images to {size[0]} x {size[1]}"] if resized else []
    if len(images) and images.ndim == 4:
        images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    return Content(
        rows=images,
        labels=labels,
        levels=255,
        axes="hw" if images.ndim == 3 else "chw",
        notes=tuple(notes),
        ids={"file": objects(path.relative_to(folder).as_posix() for path in paths)},
    )


def found_in(name: str, folder: Path) -> tuple[list[Path], list[str] | None]:
    """Return the image files of a folder, and the labels if they are in sub-folders."""
    inside = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    paths = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if not paths:
        raise ValueError(f"{name}: expected a folder of images ({', '.join(ENDINGS)}), got one without any")
    parents = [path.relative_to(folder).parts[:-1] for path in paths]
    if not any(parents):
        return paths, None
    if not all(parents):
        alone = paths[parents.index(())]
        raise ValueError(
            f"{name}: expected all images in sub-folders, which are their labels, or none, got {alone.name} outside. "
            "Move it"
        )
    labels = [parts[0] for parts in parents]
    if {label.lower() for label in labels} <= PARTS:
        raise ValueError(
            f"{name}: expected sub-folders with the names of labels, got {', '.join(sorted(set(labels)))}. Pass one"
        )
    return paths, labels if len(set(labels)) > 1 else None


def as_size(size: Any) -> tuple[int, int] | None:
    """Return a size as height and width."""
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ValueError(f"size: expected a positive int or a pair (height, width), got {size!r}")
    return pair


def pixels(path: Path, size: tuple[int, int] | None) -> tuple[np.ndarray, str, tuple[int, int]]:
    """Return one image as uint8 of shape ``(height, width)`` or ``(height, width, 3)``, its mode and its own size."""
    module = needs(str(path), "PIL.Image", "images")
    turned = needs(str(path), "PIL.ImageOps", "images").exif_transpose
    try:
        with module.open(path) as opened:
            frames, image = getattr(opened, "n_frames", 1), turned(opened)
            image.load()
    except Exception as error:  # pillow raises errors of many types for damaged files
        raise ValueError(f"{path}: expected an image, got a damaged or other file ({error}). Remove it") from error
    if frames > 1:
        raise ValueError(f"{path}: expected one image, got {frames} frames. Save them as single images")
    if image.mode not in MODES:
        raise ValueError(
            f"{path}: expected an image with 8 bits per channel, grey or RGB, got mode {image.mode}. Convert it"
        )
    alpha = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    if alpha and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise ValueError(f"{path}: expected an image without transparency, got mode {image.mode}. Convert it to RGB")
    mode, own = MODES[image.mode], (image.height, image.width)
    image = image.convert(mode)
    if size is not None and own != size:
        image = image.resize((size[1], size[0]), module.Resampling.BILINEAR)
    return np.asarray(image), mode, own


IMAGES = Reader(
    source="folder of images (PNG, JPEG, BMP, GIF, WebP, TIFF, PGM, PPM), grey or RGB, of one size",
    becomes="bytes `(n, height, width)` or `(n, 3, height, width)`; sub-folders are labels",
    takes=lambda source: is_path(source) and Path(source).is_dir() and not Path(source).name.endswith(".zarr"),
    load=load,
    options=("size",),
    extra="images",
)
