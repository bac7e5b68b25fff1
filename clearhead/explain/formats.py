"""Which page is written, and in which format, to standard output."""

import sys
from collections.abc import Sequence

from clearhead.explain import json, layer
from clearhead.explain.blocks import Block
from clearhead.explain.lessons import LESSONS
from clearhead.explain.steps import Explanation
from clearhead.explain.story import DIMS, worked_page


def write(
    e: Explanation, format: str, *, lesson: str | None = None, matrix: bool = False, heads: int | None = None
) -> None:
    """Write the worked steps, a layer of `heads`, or a lesson (order, shapes, cost): text, markdown, latex or json."""
    if format == "json":
        sys.stdout.write(as_json(e, lesson, matrix, heads))
    elif format == "text":
        from clearhead.explain import text

        to = text.console()
        text.show(page(e, lesson, matrix, heads, text.dims_that_fit(to.width, e.tokens)), to)
    else:
        from clearhead.explain import latex, markdown

        render = {"markdown": markdown.render, "latex": latex.render}[format]
        sys.stdout.write(render(page(e, lesson, matrix, heads, DIMS)))


def page(e: Explanation, lesson: str | None, matrix: bool, heads: int | None, dims: int) -> Sequence[Block]:
    """The page that is asked for."""
    if heads is not None:
        return layer.page(layer.worked(e, heads))
    return LESSONS[lesson](e).page if lesson else worked_page(e, dims, matrix)


def as_json(e: Explanation, lesson: str | None, matrix: bool, heads: int | None) -> str:
    """Its numbers."""
    if heads is not None:
        return layer.render(layer.worked(e, heads))
    return json.render_lesson(lesson, LESSONS[lesson](e), e) if lesson else json.render(e, matrix)
