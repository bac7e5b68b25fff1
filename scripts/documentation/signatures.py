"""Signatures as the sources write them: `Array` and not what it stands for, `causal()` and not a constant's name."""

import ast
import inspect
import textwrap
from typing import Any

from sphinx.application import Sphinx

PREFIXES = ("npt.", "np.", "torch.", "Tensors.", "types.", "numpy.")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the rewriting."""
    app.connect("autodoc-process-signature", rewritten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def rewritten(_: Sphinx, what: str, __: str, item: Any, ___: Any, signature: str | None, ____: str | None) -> Any:
    """The signature and the return annotation of a function or a class."""
    if what not in ("function", "method", "class") or signature is None:
        return None
    try:
        found = inspect.signature(item)
    except (TypeError, ValueError):
        return None
    hints = written_hints(item) or written_hints(getattr(item, "__init__", None))
    parameters = [p for p in found.parameters.values() if p.name not in ("self", "cls") and not p.name.startswith("_")]
    returned = hints.get("return")
    return signature_text(parameters, hints), None if what == "class" or returned == "None" else returned


def written_hints(item: Any) -> dict[str, str]:
    """Each parameter's annotation, as it stands in the source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(item)))).body[0]
    except (TypeError, OSError, SyntaxError, IndentationError):
        return {}
    if isinstance(tree, ast.ClassDef):
        fields = [x for x in tree.body if isinstance(x, ast.AnnAssign) and isinstance(x.target, ast.Name)]
        found = {x.target.id: x.annotation for x in fields if isinstance(x.target, ast.Name)}
    elif isinstance(tree, ast.FunctionDef):
        a = tree.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        found = {x.arg: x.annotation for x in every if x.annotation}
        if tree.returns:
            found["return"] = tree.returns
    else:
        return {}
    return {name: plain(ast.unparse(hint)) for name, hint in found.items()}


def plain(hint: str) -> str:
    """An annotation without quotes and without the names of the modules that everyone knows."""
    tree = ast.parse(hint, mode="eval").body
    text = tree.value if isinstance(tree, ast.Constant) and isinstance(tree.value, str) else hint
    for prefix in PREFIXES:
        text = text.replace(prefix, "")
    return text


def signature_text(parameters: list[inspect.Parameter], hints: dict[str, str]) -> str:
    """(a, b: int = 1, *, c: Array | None = None)."""
    parts, named = [], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not named:
            parts.append("*")
            named = True
        named |= p.kind is p.VAR_POSITIONAL
        stars = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        hint = f": {hints[p.name]}" if p.name in hints else ""
        default = "" if p.default is p.empty else f"{' = ' if hint else '='}{shown(p.default)}"
        parts.append(f"{stars}{p.name}{hint}{default}")
    positional = [n for n, p in enumerate(parameters) if p.kind is p.POSITIONAL_ONLY]
    if positional:
        parts.insert(positional[-1] + 1, "/")
    return f"({', '.join(parts)})"


def shown(default: Any) -> str:
    """A default as code: what has no such form is an ellipsis."""
    text = repr(default)
    return "..." if text.startswith("<") or len(text) > 40 else text
