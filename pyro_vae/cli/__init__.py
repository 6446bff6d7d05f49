"""The command ``pyro-vae``: one file per command."""

from pyro_vae.cli.command import main

__all__ = ["main"]
