"""In which format a page is written, to standard output."""

import sys

from clearhead.explain.pages import Page
from clearhead.explain.story import DIMS


def write(page: Page, format: str) -> None:
    """Write a page as text, markdown, latex, html or json."""
    if format == "json":
        sys.stdout.write(page.json())
    elif format == "text":
        from clearhead.explain import text

        to = text.console()
        text.show(page.blocks(text.dims_that_fit(to.width, page.explained.tokens)), to)
    else:
        from clearhead.explain import html, latex, markdown

        render = {"markdown": markdown.render, "latex": latex.render, "html": html.render}[format]
        sys.stdout.write(render(page.blocks(DIMS)))
