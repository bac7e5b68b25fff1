"""Results that notebooks display: by a widget where a higher room offers one, and else by what each has of its own.

Responsible for what notebooks ask. Not for the widgets: `clearhead` says who makes them, when one is asked for.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

makers: list[Callable[[Any], Any]] = []  # each gives a widget for a result, or None


class Brief:
    """A dataclass whose text has the shapes of its arrays instead of their numbers; give the class repr=False."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(brief_fields(self))})"


def brief_fields(result: Any) -> Iterator[str]:
    """Each field of a dataclass in a few words; what is None is left out."""
    for x in (field for field in fields(result) if field.repr):
        value = getattr(result, x.name)
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            yield f"{x.name} {tuple(value.shape)}"
        elif isinstance(value, tuple | list | dict):
            yield f"{len(value)} {x.name}"
        elif value is not None:
            yield f"{x.name}={value!r}"


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
