"""Which page is written, and in which format, to standard output."""

import sys

from clearhead.explain import json
from clearhead.explain.lessons import LESSONS
from clearhead.explain.steps import Explanation
from clearhead.explain.story import worked_page


def write(e: Explanation, format: str, *, lesson: str | None = None, matrix: bool = False) -> None:
    """Write the worked steps, or the lesson order, shapes or cost, as text, markdown, latex or json."""
    told = LESSONS[lesson](e) if lesson else None
    if format == "json":
        made = json.render_lesson(lesson, told, e) if lesson and told else json.render(e, matrix)
    elif format == "text":
        from clearhead.explain import text

        to = text.console()
        dims = text.dims_that_fit(to.width, e.tokens)
        text.show(told.page if told else worked_page(e, dims, matrix), to)
        return
    else:
        from clearhead.explain import latex, markdown

        render = {"markdown": markdown.render, "latex": latex.render}[format]
        made = render(told.page if told else worked_page(e, matrix=matrix))
    sys.stdout.write(made)
