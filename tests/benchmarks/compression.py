"""Bits per dimension of bits-back coding and of minus the bound, compared with gzip, bz2, lzma and PNG.

Run `PYRO_VAE_DATA=... python tests/benchmarks/compression.py`. Data: MNIST, binarized once, and the 8x8 grey digits
with levels 0..16. The VAE learns from the training images and compresses the first test images; decompression must
return the same images. Networks with two hidden layers and ReLU, Adam 1e-3, batch 100, 1,024 buckets per latent.
MNIST: 40 latents, 200 units, Bernoulli, 10 epochs; digits: 10 latents, 100 units, Categorical over 17 levels, 100
epochs.

The bound is that of the same images, averaged over 32 samples. The coder's bits exclude the initial bits and the
header; `file` includes both. All others compress the images as one stream (binary values packed 8 per byte or not,
whichever is shorter; PNG as one tall image of 1 or 8 bits per pixel) at their highest level.
"""

from __future__ import annotations

import argparse
import bz2
import functools
import gzip
import io
import lzma
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from reporting import Results, cell
from torch import Tensor, nn

import pyro_vae as pv

COLUMNS = ("minus_bound", "coder", "file", "gzip", "bz2", "lzma", "png")
SETS = {
    "mnist": {"latent": 40, "hidden": 200, "epochs": 10, "images": 2000, "levels": 2},
    "digits": {"latent": 10, "hidden": 100, "epochs": 100, "images": 300, "levels": 17},
}


def others(x: Tensor, levels: int) -> dict[str, int]:
    """Return the size in bytes under other compressors."""
    codes = (x * (levels - 1)).round().to(torch.uint8).numpy()
    streams = [codes.tobytes()]
    tall = codes.reshape(-1, codes.shape[-1])
    if levels == 2:
        streams.append(np.packbits(codes.reshape(len(codes), -1)).tobytes())
        image = Image.fromarray(tall * np.uint8(255)).convert("1")
    else:
        image = Image.fromarray(tall)
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    found = {
        "gzip": min(len(gzip.compress(s, 9)) for s in streams),
        "bz2": min(len(bz2.compress(s, 9)) for s in streams),
        "lzma": min(len(lzma.compress(s, preset=9 | lzma.PRESET_EXTREME)) for s in streams),
    }
    return {**found, "png": file.tell()}


def measure(name: str, seed: int, options: dict[str, int]) -> dict[str, Any]:
    """Train, compress and decompress."""
    data = pv.data.load(name, binarize="static" if options["levels"] == 2 else None)
    shape, latent = data.shape, options["latent"]
    net = functools.partial(pv.nets.MLP, hidden=(options["hidden"],) * 2, activation=nn.ReLU)
    categorical = functools.partial(pv.likelihoods.Categorical, levels=options["levels"])
    torch.manual_seed(seed)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=(pv.likelihoods.Bernoulli if options["levels"] == 2 else categorical)(latent, shape, net=net),
        posterior=pv.posteriors.MeanFieldNormal(shape, latent, net=net),
    )
    start = time.process_time()
    pv.fit(vae, data.train, epochs=options["epochs"], batch_size=100, seed=seed, progress=False)
    trained = time.process_time()
    x = data.test.x[: options["images"]]
    compressor = pv.tasks.Compressor(vae)
    file = compressor.compress(x)
    done = time.process_time()
    assert torch.equal(compressor.decompress(file), x)
    found = pv.tasks.Compressed.from_bytes(file)
    print(f"# {name}: {found}", flush=True)
    bound = pv.tasks.NegativeBound(32)(vae, x).mean().item() / math.log(2)
    rates = {key: 8 * size / x.numel() for key, size in others(x, options["levels"]).items()}
    return {
        "minus_bound": bound / x[0].numel(),
        "coder": found.bits_per_dimension,
        "file": 8 * len(file) / x.numel(),
        **rates,
        "seconds": trained - start,
        "milliseconds": 1000 * (done - trained) / len(x),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("runs/compression.jsonl"))
    options = parser.parse_args()
    results = Results(options.results)
    for name in options.sets:
        for seed in range(options.seeds):
            if not results.has(set=name, seed=seed, **SETS[name]):
                results.add({"set": name, "seed": seed, **SETS[name], **measure(name, seed, SETS[name])})
    print("bits per dimension; CPU seconds of training, CPU milliseconds of compression per image")
    print("| data | images | -ELBO | coder | file | gzip | bz2 | lzma | PNG | train s | ms |")
    print("|---" * 11 + "|")
    for name in options.sets:
        rows = [row for row in results.rows if all(row.get(k) == v for k, v in {"set": name, **SETS[name]}.items())]
        rates = " | ".join(cell([row[key] for row in rows], 4) for key in COLUMNS)
        cost = " | ".join(cell([row[key] for row in rows], 1) for key in ("seconds", "milliseconds"))
        print(f"| {name} | {SETS[name]['images']:,} | {rates} | {cost} |")


if __name__ == "__main__":
    main()
