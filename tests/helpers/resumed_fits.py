"""Fits of an estimator with parameters of its own: whole, resumed and compiled."""

import torch

import pyro_vae as pv


def check_resumed_and_compiled_fits(make, x, batch_size, folder):
    """All end with the same weights; `make` returns a new program and a new estimator."""

    def fit(epochs, **options):
        program, estimator = make()
        pv.fit(
            program, x, estimator=estimator, epochs=epochs, batch_size=batch_size, seed=0, progress=False, **options
        )
        modules = (program, estimator.module)
        return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])

    whole = fit(4, compile=False)
    fit(2, compile=False, run_dir=folder)
    torch.testing.assert_close(fit(4, compile=False, run_dir=folder, resume=True), whole)
    torch.testing.assert_close(fit(4, compile=pv.training.eager_graph), whole)
