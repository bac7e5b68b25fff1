"""How Sphinx builds the site from these pages: `scripts/site`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import clearhead  # noqa: E402

project = "clearhead"
version = release = clearhead.__version__
copyright = "the clearhead authors, Apache-2.0"

extensions = [
    "myst_parser",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "documentation.docstrings",
    "documentation.signatures",
    "documentation.sources",
    "documentation.checks",
    "documentation.commands",
    "documentation.pieces_of_code",
    "documentation.usable",
    "documentation.policy",
]
exclude_patterns = ["_build"]
nitpicky = True
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
highlight_language = "text"
smartquotes = False  # quotes in docstrings are mostly code: "end"
autodoc_member_order = "bysource"
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "clearhead"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_search_summary = False  # it fetches pages, which browsers refuse where a site is opened from disk
html_theme_options = {"navigation_with_keys": False, "top_of_page_buttons": []}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
