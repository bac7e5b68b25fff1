"""What theme and writer leave out for those who read by ear or by keyboard, put into every page."""

import re
from pathlib import Path

from sphinx.application import Sphinx

NAMES = (
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    ('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="Site">'),
    ('<aside class="toc-drawer', '<aside aria-label="This page" class="toc-drawer'),
    ('<th class="head"><p></p></th>', "<td></td>"),
    ("<pre>", '<pre tabindex="0">'),  # what can be scrolled can be reached
)
PARAMETERS = re.compile(r"<dl>\s*((?:<dd><em class=\"sig-param\">.*?</dd>\s*)+)</dl>", re.DOTALL)
LAST_LINES = re.compile(r"\n\s*(?=</pre>)")  # a doctest ends with an empty line, which is no part of what is read


def setup(app: Sphinx) -> dict[str, bool]:
    """Rewrite the pages once all are written, before their scripts are hashed."""
    app.connect("build-finished", complete_all, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def complete_all(app: Sphinx, exception: Exception | None) -> None:
    """Every page of a build that succeeded."""
    if exception is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            path.write_text(completed(path.read_text("utf-8")), "utf-8")


def completed(page: str) -> str:
    r"""The page, with names for its parts; parameters are lines, and no list of definitions without terms.

    >>> completed("<pre>1\n\n</pre>")
    '<pre tabindex="0">1\n</pre>'
    """
    for written, whole in NAMES:
        page = page.replace(written, whole)
    page = LAST_LINES.sub("\n", page)

    def as_lines(found: re.Match[str]) -> str:
        lines = found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
        return f'<span class="sig-lines">{lines}</span>'

    return PARAMETERS.sub(as_lines, page)
