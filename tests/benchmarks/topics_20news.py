"""Topics of 20 Newsgroups: perplexities of two decoders on held-out documents, compared with word frequencies.

Run `PYRO_VAE_DATA=... python tests/benchmarks/topics_20news.py`. 50 topics, encoder 100-100, batch 64, Adam with beta1
0.99, 8 epochs; the weight of the divergence rises over 700 steps. The bound has 10 particles and covers all test
documents, in both conventions. Learning rate and concentration of the prior are the best of four pairs on the last
1,258 training documents (trained on the others for half of the epochs, with a seed that is not used again).

The data are `20news_nvdm/20news_csr.npz`: 11,258 and 7,487 documents over 1,995 words. The published figures (NVDM
837, ProdLDA 1172, LDA by Gibbs sampling 728; 1009 for ProdLDA in a later paper) have 2,000 words, 11,314 and 7,531
documents and hundreds of epochs: similar, but not the same.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.evaluation import Perplexity
from pyro_vae.nets import BagEncoder, MixtureOfTopics, ProductOfTopics
from pyro_vae.programs import TopicModel

TOPICS, BATCH, HELD_OUT, RISE = 50, 64, 1258, 700
DECODERS = {"product of topics (ProdLDA)": ProductOfTopics, "mixture of topics (LDA)": MixtureOfTopics}
#: learning rate, and concentration of the Dirichlet that the prior approximates
SETTINGS = list(itertools.product((3e-3, 5e-3), (0.1, 1.0)))


def load() -> tuple[Tensor, Tensor, list[str]]:
    """Return counts of train and test, and the words."""
    path = Path(os.environ["PYRO_VAE_DATA"]) / "20news_nvdm" / "20news_csr.npz"
    with np.load(path, allow_pickle=False) as file:
        vocabulary = [str(word) for word in file["vocab"]]
        counts = []
        for split in ("train", "test"):
            starts = file[f"{split}_indptr"]
            x = np.zeros((len(starts) - 1, len(vocabulary)), np.float32)
            x[np.repeat(np.arange(len(x)), np.diff(starts)), file[f"{split}_indices"]] = file[f"{split}_data"]
            counts.append(torch.from_numpy(x))
    return *counts, vocabulary


def train_model(net: object, train: Tensor, rate: float, concentration: float, epochs: int, seed: int) -> TopicModel:
    torch.manual_seed(seed)
    words = train.shape[1]
    model = TopicModel(
        prior=pv.priors.LogisticNormal.like_dirichlet(TOPICS, concentration=concentration),
        likelihood=pv.likelihoods.Multinomial(TOPICS, (words,), net=functools.partial(net, counts=train.sum(0))),
        posterior=pv.posteriors.LogisticNormal((words,), TOPICS, net=BagEncoder),
    )
    pv.fit(
        model,
        train,
        estimator=pv.estimators.ELBO(beta=pv.training.Linear(RISE)),
        optimizer=functools.partial(torch.optim.Adam, lr=rate, betas=(0.99, 0.999)),
        epochs=epochs,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )
    return model


def choose(net: object, train: Tensor, epochs: int) -> tuple[float, float]:
    """Return the best settings on held-out training documents."""
    rest, held_out = train[:-HELD_OUT], train[-HELD_OUT:]
    found = {}
    for rate, concentration in SETTINGS:
        model = train_model(net, rest, rate, concentration, epochs, seed=100)
        found[rate, concentration] = pv.evaluation.perplexity(model, held_out, progress=False).per_token
        print(f"#   rate {rate}, concentration {concentration}: {found[rate, concentration]:.0f}", flush=True)
    return min(found, key=found.get)


def unigram(train: Tensor, test: Tensor) -> Perplexity:
    """Return the exact perplexity of word frequencies, with one added to each training count."""
    more = train.double().sum(0) + 1
    return Perplexity.of(pv.distributions.BagOfWords(more.log()).log_prob(test.double()), test)


def lda(train: Tensor, test: Tensor, passes: int) -> float | None:
    """Return the perplexity per token of scikit-learn's variational LDA, a bound on that of the topics as well."""
    try:
        from sklearn.decomposition import LatentDirichletAllocation
    except ImportError:
        return None
    model = LatentDirichletAllocation(TOPICS, learning_method="online", max_iter=passes, random_state=0)
    return float(model.fit(train.numpy()).perplexity(test.numpy()))


def cell(values: list[float]) -> str:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.0f} ± {error:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lda-passes", type=int, default=3, help="passes of scikit-learn's LDA; 0 leaves it out")
    options = parser.parse_args()
    train, test, vocabulary = load()
    found = {name: [] for name in DECODERS}
    seconds = {name: [] for name in DECODERS}
    for name, net in DECODERS.items():
        print(f"# {name}, perplexity per token of held-out training documents:", flush=True)
        rate, concentration = choose(net, train, max(1, options.epochs // 2))
        print(f"# {name}: rate {rate}, concentration {concentration}", flush=True)
        for seed in range(options.seeds):
            start = time.process_time()
            model = train_model(net, train, rate, concentration, options.epochs, seed)
            seconds[name].append(time.process_time() - start)
            found[name].append(pv.evaluation.perplexity(model, test, progress=False))
            print(f"# seed {seed}, {name}: {found[name][-1]}, {seconds[name][-1]:.0f} s", flush=True)
            if not seed:
                for words in model.top_words(vocabulary, 8)[:10]:
                    print(f"#   {' '.join(words)}", flush=True)
    print(f"{options.epochs} epochs, {options.seeds} seeds, {torch.get_num_threads()} threads, mean ± standard error")
    print("| model | perplexity per token | mean over documents | training, CPU s |\n|---|---|---|---|")
    for name in DECODERS:
        columns = [p.per_token for p in found[name]], [p.per_document for p in found[name]], seconds[name]
        print(f"| {name} | {' | '.join(cell(column) for column in columns)} |", flush=True)
    words = unigram(train, test)
    print(f"| word frequencies, exact | {words.per_token:.0f} | {words.per_document:.0f} | |", flush=True)
    perplexity = lda(train, test, options.lda_passes) if options.lda_passes else None
    if perplexity is not None:
        print(f"| scikit-learn's LDA, {options.lda_passes} passes, one seed | {perplexity:.0f} | | |")


if __name__ == "__main__":
    main()
