"""Writes a page to standard output in a chosen format."""

import sys

from clearhead.explain.pages import Page
from clearhead.explain.story import MOST_DIMS_SHOWN


def write_page(page: Page, format: str) -> None:
    """Write a page as text, markdown, latex, html or json."""
    if format == "json":
        sys.stdout.write(page.json())
    elif format == "text":
        from clearhead.explain import text

        to = text.console()
        text.print_page(page.blocks(text.dims_that_fit(to.width, page.explained.tokens)), to)
    else:
        from clearhead.explain import html, latex, markdown

        render = {"markdown": markdown.render, "latex": latex.render, "html": html.render}[format]
        sys.stdout.write(render(page.blocks(MOST_DIMS_SHOWN)))
