"""HTML pages that open from disk and load nothing from the network."""

from pyro_vae.pages.array_program import UnsupportedOperation, array_program
from pyro_vae.pages.comparison import comparison
from pyro_vae.pages.explorer import explorer
from pyro_vae.pages.page import page
from pyro_vae.pages.report import report

__all__ = ["UnsupportedOperation", "array_program", "comparison", "explorer", "page", "report"]
