# %% [markdown]
# # 15. What changes when data do not fit into memory, a run takes days, or there are a GPU and several machines?
#
# One argument of `pv.fit` each time, and no line of the model. Here everything is shown at a size that takes seconds,
# with what can go wrong measured: memory, the order of the data, an interruption, compiled steps, two processes.
#
# With `--full`: up to 1 GB of data, and 60 epochs, in about 3 minutes on one CPU core.

# %%
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyro
import torch
from budget import amount, figure
from matplotlib.figure import Figure
from safetensors.torch import load_file

import pyro_vae as pv
from pyro_vae.plots.style import COLOURS, WIDTH, styled

folder = Path(tempfile.mkdtemp(prefix="big-data-"))
features = 256


def vae(shape, hidden):
    pyro.set_rng_seed(0)
    net = partial(pv.nets.MLP, hidden=(hidden,))
    return pv.VAE(
        prior=pv.priors.StandardNormal(4),
        likelihood=pv.likelihoods.Normal(4, shape, net=net, scale=0.5),
        posterior=pv.posteriors.MeanFieldNormal(shape, 4, net=net),
    )


def weights(program):
    return torch.cat([p.detach().flatten() for p in program.parameters()])


# %% [markdown]
# ## Data larger than memory
#
# A *memory map* is an array whose rows lie in a file. `np.load(path, mmap_mode="r")` opens one in no time, and `fit`
# takes it like an array. The loss of a step asks for a batch $b$ of rows only,
#
# $$\nabla \frac{1}{\lvert b \rvert} \sum_{n \in b} \mathcal L(x_n), \qquad b \subset \{1, \dots, N\} ,$$
#
# so that a batch has to be in memory, and the next few, which threads read while the step is at work (*prefetch*). We
# write files of growing size and look at the memory that training adds to the process, apart from pages of files
# (which the system takes back whenever it needs them). An array in memory is copied into a tensor once, and for a
# while counts twice.


# %%
class Peak:
    """The most memory that the process holds within, above that before, in MB; pages of files are left out."""

    def now(self):
        if not Path("/proc/self/statm").exists():  # only Linux tells
            return float("nan")
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def __enter__(self):
        self.start, self.most, self.over = self.now(), 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.over.wait(0.005):
            self.most = max(self.most, self.now() - self.start)

    def __exit__(self, *error):
        self.over.set()
        self.thread.join()


def write(path, rows):
    """Write a file of random rows, a part at a time, as data that never were in memory together."""
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, features))
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(4, features))
    for part in range(0, rows, 4096):
        here = file[part : part + 4096]
        here[:] = np.tanh(generator.normal(size=(len(here), 4)) @ mixing) + 0.5 * generator.normal(size=here.shape)
    file.flush()


fit = partial(pv.fit, epochs=1, batch_size=1024, seed=1)
sizes, peaks, trained = [], {"array": [], "memory map": []}, {}
fit(vae((features,), 32), torch.zeros(4096, features))  # what the first training loads is no part of the comparison
for rows in amount(smoke=(2048, 4096), default=(8192, 32_768, 98_304), full=(65_536, 262_144, 1_048_576)):
    write(folder / "rows.npy", rows)
    sizes.append(rows * features * 4 / 1e6)
    for name, mode in {"memory map": "r", "array": None}.items():
        with Peak() as peak:
            data = np.load(folder / "rows.npy", mmap_mode=mode)
            trained[name] = vae((features,), 32)
            fit(trained[name], data)
            del data
        peaks[name].append(peak.most or float("nan"))
    print(
        f"{sizes[-1]:7.1f} MB of data: " + ", ".join(f"{name} + {values[-1]:.0f} MB" for name, values in peaks.items())
    )

# %% [markdown]
# ## Order
#
# The order of the data is a function of seed and epoch, computed row by row and not kept as a list, so that it is the
# same whether rows lie in memory or in a file, and the trained weights are the same to the last bit. (An order that a
# random stream makes on the way would change with every other use of the stream.)

# %%
same = torch.equal(weights(trained["array"]), weights(trained["memory map"]))
print("weights after training from memory and from the file:", "equal, bit by bit" if same else "different")
batches = pv.training.Batches(torch.arange(12.0)[:, None], batch_size=4, seed=1)
for epoch in (0, 1, 0):
    print(f"epoch {epoch}: rows", *([int(row) for row in batch[0]] for batch in batches.epoch(epoch)))

# %% [markdown]
# ## A run that is interrupted
#
# With `run_dir=` a run keeps checkpoints: weights, the optimizer, the random streams, and where in which epoch it
# stood. Ctrl-C, or the signal that a cluster sends before it takes a machine away, lets the step finish and saves. The
# test of a checkpoint is simple: with `resume=True` the run has to end as if nothing had happened. Here a run sends
# itself the signal after a third of its epochs.

# %%
digits = pv.data.load("digits")
epochs = amount(smoke=3, default=12, full=60)
long = partial(pv.fit, epochs=epochs, batch_size=128, seed=2, valid=digits.valid, progress=False)


def interrupt(metrics, step):
    if metrics["epoch"] == epochs // 3:
        os.kill(os.getpid(), signal.SIGINT)


whole = vae(digits.shape, 64)
history = long(whole, digits.train)
try:
    long(vae(digits.shape, 64), digits.train, run_dir=folder / "run", callbacks=[interrupt])
except pv.training.Interrupted as end:
    print(f"{signal.Signals(end.number).name} after epoch {epochs // 3}; saved: {end.checkpoint is not None}")
resumed = vae(digits.shape, 64)
history_of_two = long(resumed, digits.train, run_dir=folder / "run", resume=True)
difference = (weights(whole) - weights(resumed)).abs().max()
print(f"largest difference between the weights of the whole and of the resumed run: {difference:g}")


# %%
@styled
def scale():
    drawn = Figure(figsize=(1.5 * WIDTH, 3.2), layout="constrained")
    memory, curve = drawn.subplots(1, 2)
    for i, (name, values) in enumerate(peaks.items()):
        look = {"color": COLOURS[i], "marker": "os"[i], "label": f"{name} in training"}
        memory.plot(sizes, values, **look)
    memory.plot(sizes, sizes, color="black", linewidth=0.8, linestyle="--", label="size of the data")
    memory.set(title="Memory that training adds", xlabel="size of the data (MB)", ylabel="peak (MB)", xscale="log")
    memory.set_yscale("log")
    curve.plot(range(epochs), history["valid_bound"], color=COLOURS[0], linewidth=4, alpha=0.4, label="whole run")
    style = {"color": COLOURS[3], "marker": ".", "linestyle": ":", "label": "interrupted and resumed"}
    curve.plot(range(epochs), history_of_two["valid_bound"], **style)
    curve.axvline(epochs // 3 + 0.5, color="black", linewidth=0.8, label="interruption")
    curve.set(title="One run in one piece and in two", xlabel="epoch", ylabel="held-out bound (nats per image)")
    for axes in (memory, curve):
        axes.grid(True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, fontsize=8)
    return drawn


figure(scale(), "15_scale")

# %% [markdown]
# ## Compiled steps
#
# A step of a small VAE is hundreds of calls that each do little. `compile=True` records one step and compiles it,
# which takes seconds once and needs a C++ compiler; where there is none, or a step cannot be recorded, a warning says
# so and training goes on as it is. The losses are those of the plain step up to rounding. Times are in CPU time of the
# process, which other work on the machine hardly touches.


# %%
def cpu_time(compile):
    program, marks = vae(digits.shape, 64), []
    history = pv.fit(
        program,
        digits.train,
        epochs=amount(smoke=2, default=8, full=40),
        batch_size=128,
        seed=3,
        compile=compile,
        callbacks=[lambda metrics, step: marks.append((step, time.process_time()))],
    )
    steps, times = np.diff(np.array(marks), axis=0).T
    each = times / steps * 1000
    print(f"compile={compile!s:5} {each.mean():.2f} ± {each.std() / len(each) ** 0.5:.2f} ms a step")
    return torch.tensor(history["loss"])


# too long for a smoke test
losses = [cpu_time(compile) for compile in (False, amount(smoke=False, default=True, full=True))]
print(f"largest difference between the losses: {(losses[0] - losses[1]).abs().max():.1g} nats")

# %% [markdown]
# ## Several processes
#
# `torchrun` starts a script in several processes, on one machine or many. Nothing in the script says so: `fit` joins
# the processes, gives each its share of every batch, and averages the gradients,
#
# $$\nabla \frac{1}{\lvert b \rvert} \sum_{n \in b} \mathcal L(x_n)
#   = \sum_r \frac{\lvert b_r \rvert}{\lvert b \rvert}\,
#     \nabla \frac{1}{\lvert b_r \rvert} \sum_{n \in b_r} \mathcal L(x_n) ,$$
#
# so that all take the same step as one process would with the whole batch (but for the noise of the draws, which is
# each process's own). The first one writes the run folder. Two processes on one small CPU are no faster; here is that
# they agree.

# %%
script = folder / "train.py"
script.write_text(f"""
import pyro, torch, pyro_vae as pv
pyro.set_rng_seed(0)
net = lambda i, o: pv.nets.MLP(i, o, hidden=(64,))
vae = pv.VAE(
    prior=pv.priors.StandardNormal(4),
    likelihood=pv.likelihoods.Normal(4, (8, 8), net=net, scale=0.5),
    posterior=pv.posteriors.MeanFieldNormal((8, 8), 4, net=net),
)
pv.fit(vae, pv.data.load("digits").train, epochs={epochs}, batch_size=128, run_dir="two", progress=False)
""")
torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
done = subprocess.run([*torchrun, str(script)], cwd=folder, capture_output=True, text=True)
if done.returncode:
    raise RuntimeError(done.stderr)

two = vae(digits.shape, 64)
two.load_state_dict(load_file(folder / "two" / "weights.safetensors"))
pyro.set_rng_seed(0)
found = {}
for name, program in {"one process": whole, "two processes": two.eval()}.items():
    with torch.no_grad():
        found[name] = pv.estimators.ELBO(num_particles=50).per_datum(program.model, program.guide, digits.test.x)
    print(f"{name:14} bound {found[name].mean():.2f} nats")
change = found["two processes"] - found["one process"]
print(
    f"difference {change.mean():+.2f} ± {change.std() / len(change) ** 0.5:.2f} nats, over {len(change)} test images"
)

# %% [markdown]
# ## A GPU
#
# `device="cuda"` moves the program and each batch; a memory map is then read into pinned memory, which the GPU fetches
# while it computes. What changes for you:
#
# * batches should be larger, as a GPU needs many rows at a time to be busy, and the learning rate with them;
# * `compile=True` pays more: the calls of a small step take longer to start than to run;
# * draws differ from those of the CPU under the same seed, so that runs agree in distribution only;
# * in code of your own, a `.item()`, a `print` or an `if` on a tensor makes the CPU wait for the GPU in every step.

# %%
device = "cuda" if torch.cuda.is_available() else "cpu"
history = long(vae(digits.shape, 64), digits.train, epochs=2, device=device)
print(f"trained on {device}: bound {history['valid_bound'][-1]:.2f} nats after 2 epochs")

# %% [markdown]
# ## Exercise
#
# 1. End a run by `kill -9` (no process can catch that) and resume it. What is lost, and what does
#    `checkpoint_every=` change?
# 2. Read the rows in the order of the file (`shuffle=False` of a `DataLoader`), with the digits sorted by label. What
#    happens to the bound?
#
# ## References
#
# * PyTorch distributed: experiences on accelerating data parallel training (Li et al., 2020),
#   https://arxiv.org/abs/2006.15704
# * Accurate, large minibatch SGD: training ImageNet in 1 hour (Goyal et al., 2017), https://arxiv.org/abs/1706.02677
# * PyTorch 2: faster machine learning through dynamic Python bytecode transformation and graph compilation (Ansel et
#   al., 2024), https://doi.org/10.1145/3620665.3640366
