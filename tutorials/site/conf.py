"""Sphinx settings; `build.py` gathers the sources and calls Sphinx."""

import pyro_vae

project = "pyro_vae"
release = pyro_vae.__version__
project_copyright = ""
html_show_copyright = False
html_show_sphinx = False

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",  # formulas without a network
]

# docstrings
autosummary_generate = False  # the pages hold the text themselves
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Shape", "notes_style")]
default_role = "literal"
python_use_unqualified_type_names = True
toc_object_entries = False  # each has a heading

# tutorials: text that runs
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_kernel_rgx_aliases = {"": "python3"}
nb_execution_mode = "cache"
nb_execution_timeout = -1
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove-warn"
myst_enable_extensions = ["amsmath", "dollarmath", "linkify"]
myst_linkify_fuzzy_links = False  # an address has a scheme; the name of a file is none
myst_heading_anchors = 3

exclude_patterns = ["README.md"]  # read in parts

html_theme = "furo"
html_title = "pyro_vae"
html_copy_source = False
html_show_sourcelink = False
