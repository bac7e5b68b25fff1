"""What makes a build fail besides Sphinx's own warnings: a picture without words, a missing name, a bad host."""

import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.logging import getLogger

from documentation.public import PUBLIC

warn = getLogger(__name__).warning
HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?")


def setup(app: Sphinx) -> dict[str, bool]:
    """Check each page when it is read, and the reference when all are."""
    app.connect("doctree-read", check_page)
    app.connect("env-check-consistency", check_reference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def check_page(_: Sphinx, tree: nodes.document) -> None:
    """Every picture says in words what it shows; every link to another site has an address that can be one."""
    for image in tree.findall(nodes.image):
        if not image.get("alt", "").strip():
            warn("the picture %s has no alternative text", image["uri"], location=image)
    for link in tree.findall(nodes.reference):
        if fault := fault_of(link.get("refuri", "")):
            warn("%s: %s", link["refuri"], fault, location=link)


def fault_of(uri: str) -> str:
    """What is wrong with an address of another site; nothing is looked up.

    >>> fault_of("https://arxiv.org/abs/1706.03762"), fault_of("http//arxiv.org"), fault_of("https://a b.org")
    ('', '', 'this is no host')
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        if parts.hostname in ("localhost", "127.0.0.1"):
            return ""
        return "" if HOST.fullmatch(parts.netloc.lower()) else "this is no host"
    return "" if parts.scheme in ("", "mailto") else f"links to {parts.scheme} are not for a site"


def check_reference(_: Sphinx, env: BuildEnvironment) -> None:
    """Every public name has a docstring and a place in the reference."""
    known = {id(found) for name in env.domains.python_domain.objects if (found := imported(name)) is not None}
    for name, item in public():
        if not (inspect.getdoc(item) or "").strip() and not isinstance(item, str):
            warn("%s has no docstring", name)
        if id(item) not in known and name not in env.domains.python_domain.objects:
            warn("%s is public, but not in the reference", name)


def public() -> Iterator[tuple[str, Any]]:
    """All public names with what they are."""
    for module, names in PUBLIC.items():
        for name in names:
            yield f"{module}.{name}", getattr(importlib.import_module(module), name)


def imported(name: str) -> Any:
    """What a dotted name stands for; None where there is no such thing."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            item: Any = importlib.import_module(".".join(parts[:n]))
        except ImportError:
            continue
        for part in parts[n:]:
            item = getattr(item, part, None)
        return item if isinstance(item, ModuleType) or n < len(parts) else None
    return None
