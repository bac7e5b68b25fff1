"""Docstrings as they are written, plain text with `code` in backticks, turned into what Sphinx reads.

Every character that reStructuredText gives a meaning is taken at its word: |x|, a*b, W_O. Examples, lists and indented
code keep their form. A `name` of the reference becomes a link, unless it is one of the object's own parameters.
"""

import inspect
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole
from sphinx.util.nodes import make_refnode

NAME = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)(\(.*\))?")
ITEM = re.compile(r"(\s*)((?:\d+\.|-) )(.*)")
ERROR = re.compile(r"(?<![\w.])(\w+Error)\b")
SPECIAL = re.compile(r"([\\*|_`])")


class NameRole(XRefRole):
    """A name in a docstring: a link where the reference has it, else code."""

    def process_link(self, env: Any, refnode: Element, has_explicit_title: bool, title: str, target: str) -> Any:
        """Look from where the docstring is."""
        refnode["py:module"], refnode["py:class"] = env.ref_context.get("py:module"), env.ref_context.get("py:class")
        refnode["optional"] = True
        return title, target


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the conversion, the role that it writes, and where names are looked for."""
    app.add_role_to_domain("py", "name", NameRole())
    app.connect("autodoc-process-docstring", convert)
    app.connect("autodoc-skip-member", is_field_number)
    app.connect("missing-reference", found_elsewhere)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def convert(_: Sphinx, what: str, __: str, item: Any, ___: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText, in place."""
    own = own_names(item) if what != "module" else set()
    text = lines[:]
    while text and not text[-1].strip():
        text.pop()
    lines[:] = [line for block in blocks(text) for line in [*converted(block, own), ""]]


def own_names(item: Any) -> set[str]:
    """The parameters of a function or class: they are no links, even where a function has the same name."""
    try:
        return set(inspect.signature(item).parameters)
    except (TypeError, ValueError):
        return set()


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """What stands between empty lines."""
    for filled, group in groupby(lines, lambda line: bool(line.strip())):
        if filled:
            yield list(group)


def converted(block: list[str], own: set[str]) -> Iterator[str]:
    """One block: an example, code, a list or a paragraph."""
    if block[0].lstrip().startswith(">>>"):
        yield from block
    elif all(line.startswith("    ") for line in block) and not ITEM.fullmatch(block[0]):
        language = "text" if re.search(r"[=←→∈·]\s.*[Σ∘√·‖]|^\s*\S+ +→", "\n".join(block)) else "python"
        yield from [f".. code-block:: {language}", "", *block]
    elif ITEM.fullmatch(block[0]):
        for line in block:
            match = ITEM.fullmatch(line)
            yield match[1] + match[2] + escaped(match[3], own) if match else escaped(line, own)
    else:
        yield from escaped("\n".join(block), own).split("\n")


def escaped(text: str, own: set[str]) -> str:
    """Text with `code` as links or literals, and nothing else that reStructuredText would read."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick of its own
        return SPECIAL.sub(r"\\\1", text)
    result = ""
    for n, part in enumerate(parts):
        if n % 2 == 0:
            result += ERROR.sub(r":py:name:`\1`", SPECIAL.sub(r"\\\1", part))
            continue
        following = parts[n + 1][:1]
        code = " ".join(part.split())
        match = NAME.fullmatch(code)
        if match and match[1] not in own and match[1] not in {"q", "k", "v", "out", "None", "True", "False"}:
            result += rf":py:name:`{code} <{match[1]}>`"
        else:
            result += f"``{code}``"
        result += r"\ " if following.isalnum() or (following and following in "′′’") else ""
    return result


def is_field_number(_: Sphinx, __: str, ___: str, item: Any, ____: bool, _____: Any) -> bool | None:
    """Leave out what Python says of a named tuple's fields; the class's docstring has them."""
    doc = getattr(item, "__doc__", None) or ""
    return True if doc.startswith("Alias for field number") else None


def found_elsewhere(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """A name of the package's face, from wherever it is spoken of; code and types of others stay text."""
    if node.get("refdomain") != "py":
        return None
    objects = env.domains.python_domain.objects
    target = node["reftarget"].removeprefix("clearhead.")
    here = (node.get("py:module") or "clearhead").removeprefix("clearhead").removeprefix(".")
    owner = node.get("py:class")
    for prefix in (f"{here}.{owner}." if owner else "", f"{here}." if here else "", ""):
        name = f"clearhead.{prefix}{target}"
        if name in objects:
            entry = objects[name]
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)
    if node.get("optional") or node["reftype"] == "class":  # a type in a signature: of numpy, of torch, or of an alias
        return content
    return None
