"""How Sphinx builds the site (`scripts/docs`). All that a page shows is in the site itself: it needs no network."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_tools"))

from tomowire import __version__

project = "tomowire"
author = copyright = "the tomowire developers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings", "links", "made"]
exclude_patterns = ["_tools"]
myst_heading_anchors = 6

# In a docstring single backticks are code, and lead to what is documented by that name.
default_role = "py:obj"
smartquotes = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# What a class has of one of ours belongs to its description, what it has of Python's does not.
autodoc_default_options = {"members": True, "inherited-members": "object,int,str,BaseException,Exception"}
python_use_unqualified_type_names = True
maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"tomowire {version}"
html_show_sphinx = False
html_copy_source = False
