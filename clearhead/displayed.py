"""Results that notebooks display: by a widget where a higher room offers one, and else by what each has of its own.

Responsible for what notebooks ask. Not for the widgets: `clearhead` says who makes them, when one is asked for.
"""

import sys
from collections.abc import Callable
from typing import Any

makers: list[Callable[[Any], Any]] = []  # each gives a widget for a result, or None


class Displayed:
    """A result that can display itself by a widget; Jupyter asks `_repr_mimebundle_`, marimo `_display_`."""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """The widget; Jupyter adds text, HTML and pictures by asking for each."""
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        widget = widget_of(self) if hasattr(shell, "kernel") else None
        return {} if widget is None else dict(widget.view())

    def _display_(self) -> Any:
        """The widget, or what the result has of its own."""
        widget = widget_of(self)
        return Own(self) if widget is None else widget


class Own:
    """A result as it displays itself without a widget."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def __repr__(self) -> str:
        return repr(self.result)

    def _repr_html_(self) -> str | None:
        found: str | None = self.result._repr_html_() if hasattr(self.result, "_repr_html_") else None
        return found


def widget_of(result: Any) -> Any:
    """A widget for a result; None where there is none for it, or no widgets at all."""
    return next((widget for make in makers if (widget := make(result)) is not None), None)
