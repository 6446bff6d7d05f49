"""The steps of `step_time.py` in NumPyro: jit-compiled, many in one call by `fori_loop`."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor


def numpyro_steps(
    x: Tensor, *, hidden: tuple[int, ...], latent: int, particles: int | None = None
) -> Callable[[int], None] | None:
    """Return a function that takes a number of steps on the batch, or None if NumPyro is not installed."""
    try:
        import jax
        import numpyro
        from jax import numpy as jnp
        from numpyro import distributions as dist
        from numpyro.infer import SVI, RenyiELBO, Trace_ELBO
    except ImportError:
        print("NumPyro is not installed, so its rows are left out: pip install 'pyro-vae[bench]'")
        return None
    activation = jax.nn.relu if particles is None else jnp.tanh
    elbo = Trace_ELBO() if particles is None else RenyiELBO(alpha=0.0, num_particles=particles)

    def layers(key: jax.Array, sizes: list[int]) -> list[tuple[jax.Array, jax.Array]]:
        made = []
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
            key, first, second = jax.random.split(key, 3)
            limit = 1 / math.sqrt(inputs)
            weight = jax.random.uniform(first, (inputs, outputs), minval=-limit, maxval=limit)
            made.append((weight, jax.random.uniform(second, (outputs,), minval=-limit, maxval=limit)))
        return made

    def network(weights: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
        for w, b in weights[:-1]:
            x = activation(x @ w + b)
        w, b = weights[-1]
        return x @ w + b

    features = x.shape[1]
    encoder = layers(jax.random.PRNGKey(0), [features, *hidden, 2 * latent])
    decoder = layers(jax.random.PRNGKey(1), [latent, *hidden[::-1], features])

    def model(x: jax.Array) -> None:
        weights = numpyro.param("decoder", decoder)
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros((x.shape[0], latent)), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=network(weights, z)).to_event(1), obs=x)

    def guide(x: jax.Array) -> None:
        weights = numpyro.param("encoder", encoder)
        with numpyro.plate("data", x.shape[0]):
            out = network(weights, x)
            loc, log_var = out[:, :latent], out[:, latent:]
            numpyro.sample("z", dist.Normal(loc, jnp.exp(0.5 * log_var)).to_event(1))

    svi = SVI(model, guide, numpyro.optim.Adam(1e-3), elbo)
    data = jnp.array(x.cpu().numpy())
    state = [svi.init(jax.random.PRNGKey(2), data)]

    @jax.jit
    def run(state: object, n: int) -> object:
        return jax.lax.fori_loop(0, n, lambda i, s: svi.update(s, data)[0], state)

    def steps(n: int) -> None:
        state[0] = jax.block_until_ready(run(state[0], n))

    return steps
