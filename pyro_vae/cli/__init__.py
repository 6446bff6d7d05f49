"""The command ``pyro-vae``: one file per command."""

from pyro_vae.cli.main import main

__all__ = ["main"]
