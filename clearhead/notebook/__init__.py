"""Widgets for Jupyter and marimo: the page's screens, answered by the notebook's kernel (`clearhead[notebook]`).

>>> from clearhead.notebook import Learn
>>> Learn("the river bank")  # the last line of a cell shows it
Learn('the river bank')
"""

try:
    import anywidget as _anywidget  # noqa: F401
except ImportError as error:
    raise ImportError("clearhead.notebook needs anywidget: pip install 'clearhead[notebook]'") from error

from clearhead.notebook.learn import Learn
from clearhead.notebook.read import Read

__all__ = ["Learn", "Read"]
