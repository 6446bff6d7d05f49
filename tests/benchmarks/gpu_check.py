"""Checks on a GPU: compiled steps, CUDA graphs, resuming, precision, synchronisation and several processes.

Run `python tests/benchmarks/gpu_check.py` on a machine with a GPU: it prints one line per check. Exit status 1 means
that a check failed; without a GPU all checks are skipped. `tests/benchmarks/step_time.py` measures the steps on the
same machine.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable

import torch

import pyro_vae as pv
from pyro_vae.config.parts import shelf
from pyro_vae.training import SVI, TF32, Autocast, eager_graph, inductor

EPOCHS = 5


def vae(latent: int = 8) -> pv.VAE:
    """Return a small program, with the same weights in each call."""
    torch.manual_seed(0)
    return pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=pv.likelihoods.Bernoulli(latent, (64,)),
        posterior=pv.posteriors.MeanFieldNormal((64,), latent),
    )


def discrete() -> pv.VAE:
    """Return a small program with Bernoulli latents."""
    torch.manual_seed(0)
    return pv.VAE(
        prior=pv.priors.Bernoulli(3),
        likelihood=pv.likelihoods.Bernoulli(3, (64,)),
        posterior=pv.posteriors.Bernoulli((64,), 3),
    )


def grey() -> pv.data.Split:
    """Return grey levels that are binarized at each access; the last batch of 64 is smaller."""
    levels = torch.rand(1300, 64, generator=torch.Generator().manual_seed(1))
    return pv.data.Split(levels, transform=pv.data.DrawBits())


def trained(program: pv.VAE | None = None, **options: object) -> tuple[list[float], torch.Tensor]:
    """Return the loss of each epoch, and the weights."""
    program = program or vae()
    settings = {"epochs": EPOCHS, "batch_size": 64, "device": "cuda", "seed": 2, "progress": False, **options}
    history = pv.fit(program, grey(), **settings)
    return history["loss"], torch.cat([p.detach().flatten() for p in program.parameters()]).cpu()


def same_as_uncompiled(compiler: object) -> str:
    """The compiled and the captured step have the losses of the uncompiled step with the same noise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "compile: ")  # a warning of this library: the step would run uncompiled
        found, weights = trained(compile=compiler)
    exact, others = trained()
    torch.testing.assert_close(torch.tensor(found), torch.tensor(exact), rtol=1e-4, atol=1e-4)
    return f"largest difference of a weight {float((weights - others).abs().max()):.1e}"


def resumed() -> str:
    """A compiled run that is resumed halfway ends bit for bit as an uninterrupted one."""
    whole = trained(compile=True)[1]
    with tempfile.TemporaryDirectory() as folder:
        trained(compile=True, run_dir=folder, epochs=2)
        parts = trained(compile=True, run_dir=folder, resume=True)[1]
    assert torch.equal(whole, parts), f"largest difference {float((whole - parts).abs().max()):.1e}"
    return "equal bits"


def low(precision: object) -> str:
    """Layers in bfloat16 change the loss by rounding alone."""
    losses, weights = trained(precision=precision, compile=True)
    exact, others = trained()
    assert abs(losses[-1] / exact[-1] - 1) < 0.02, f"{losses} and {exact}"
    difference = float((weights - others).abs().max())
    return f"loss {losses[-1]:.3f}, in float32 {exact[-1]:.3f} nats; largest difference of a weight {difference:.1e}"


def unsynchronized(compiler: object) -> str:
    """No step waits for the device."""
    source = pv.training.Batches(grey(), batch_size=64, device=torch.device("cuda"))
    adam = functools.partial(torch.optim.Adam, lr=1e-3)
    svi = SVI(vae().to("cuda"), pv.estimators.ELBO(), adam, compiler=compiler, data=source.on_device)
    batches = [batch for epoch in range(3) for batch in source.selected(epoch) if len(batch[0]) == 64]
    for batch in batches[:3]:
        svi.update(*batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[3:]:
            svi.update(*batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return f"{len(batches) - 3} steps"


def every_estimator() -> str:
    """Every exported estimator has the losses of the uncompiled step when its graph is captured."""
    kinds = list(shelf(pv.estimators, pv.estimators.Estimator).values())
    for kind in kinds:
        scored = not issubclass(kind.draws, pv.trace.Reparameterized) or kind is pv.estimators.Enumeration
        make = discrete if scored else functools.partial(vae, 3)
        found, exact = (
            trained(make(), estimator=kind.example(), epochs=2, compile=compiler)[0]
            for compiler in (eager_graph, False)
        )
        torch.testing.assert_close(torch.tensor(found), torch.tensor(exact), rtol=1e-3, atol=1e-3, msg=kind.__name__)
    return f"{len(kinds)} estimators"


def under_torchrun() -> str:
    """One process per GPU trains with nccl."""
    ranks = torch.cuda.device_count()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    with tempfile.TemporaryDirectory() as folder:
        train = ["train", "--epochs=1", "--num-particles=5", "--quiet", "--device=cuda", f"--run-dir={folder}/run"]
        done = subprocess.run([sys.executable, *torchrun, "-m", "pyro_vae", *train], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    return f"{ranks} processes"


CHECKS: dict[str, Callable[[], str]] = {
    "inductor and CUDA graph": functools.partial(same_as_uncompiled, True),
    "CUDA graph without inductor": functools.partial(same_as_uncompiled, eager_graph),
    "resumed": resumed,
    "every estimator as a CUDA graph": every_estimator,
    "layers in bfloat16": functools.partial(low, Autocast(torch.bfloat16)),
    "TF32": functools.partial(low, TF32()),
    "no synchronisation, uncompiled": functools.partial(unsynchronized, None),
    "no synchronisation, compiled": functools.partial(unsynchronized, inductor),
    "no synchronisation, CUDA graph": functools.partial(unsynchronized, eager_graph),
    "torchrun and nccl": under_torchrun,
}


def main() -> None:
    if not torch.cuda.is_available():
        print(f"skipped, as there is no GPU here: {', '.join(CHECKS)}")
        return
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    failed = 0
    for name, check in CHECKS.items():
        try:
            print(f"{name}: {check()}", flush=True)
        except Exception:  # report all failures
            failed += 1
            print(f"{name}: FAILED\n{traceback.format_exc()}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
