"""Set-up that all tests share: threads, random state, fixtures."""

import os

# one thread per worker of pytest-xdist, in the subprocesses of its tests too; torch reads it when it is imported
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyro  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

pytest.register_assert_rewrite("helpers")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Run the whole suite on all cores, and files named on the command line in this process."""
    return None if config.args_source is config.ArgsSource.TESTPATHS else 0


def pytest_make_parametrize_id(val):
    """Name parameters without their address in memory, which differs between the workers of pytest-xdist."""
    return type(val).__name__ if " at 0x" in repr(val) and not hasattr(val, "__name__") else None


@pytest.fixture(autouse=True)
def _seeded():
    """Start each test and each docstring example from the same random state and an empty parameter store."""
    with torch.random.fork_rng():
        # without a GPU this does all that torch.manual_seed does, in a thousandth of the time
        (torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed)(0)
        yield
    pyro.clear_param_store()


@pytest.fixture
def digits():
    import pyro_vae as pv

    return pv.data.load("digits", binarize="static")


@pytest.fixture
def vae():
    from helpers.programs import make_vae

    return make_vae()
