"""How Sphinx builds the documentation: `make docs`."""

from importlib.metadata import version as installed

project = "minigrad"
author = "The minigrad authors"
copyright = f"2026, {author}"
version = release = installed("minigrad-tape")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures of a line; the words of an argument say what it takes
napoleon_numpy_docstring = False
myst_enable_extensions = ["colon_fence", "deflist", "smartquotes"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"minigrad {release}"
html_theme_options = {"top_of_page_buttons": []}
