"""The form of error messages: what is wrong, then a step that the reader can take, and a full stop."""

import ast
from functools import cache
from pathlib import Path

import clearhead
from clearhead import errors

PACKAGE = Path(clearhead.__file__).parent
# Of a TraceError, each message is a part: the function and its line are put before it.
TREE = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.ClearheadError) and kind is not errors.TraceError
}


def text_of(node: ast.expr) -> str | None:
    """A message as it stands in the source, each value as {}; None where it is put together elsewhere."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            both = text_of(left), text_of(right)
            return None if None in both else f"{both[0]}{both[1]}"
    return None


@cache
def messages() -> list[tuple[str, str]]:
    """Where each error of the tree is raised, and its message."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[first, *_])) if name in TREE:
                    text = text_of(first)
                    if text is not None:
                        found.append((f"{path.relative_to(PACKAGE)}:{node.lineno}", text))
    return found


def complete(text: str) -> bool:
    """Whether a message says what is wrong, then a step: after a colon or full stop, or in a value at its end."""
    body = text.rstrip().removesuffix(".")
    step = any(sign in body for sign in (": ", ". ", "; ", ", as in ")) or body.endswith("{}")
    return step and text.rstrip().endswith((".", "…", "?", "{}"))


def test_most_messages_are_read():
    assert len(messages()) > 200


def test_a_message_that_only_complains_is_seen():
    assert complete("rows must be a slice without a step, got {}: use slice(first, stop).")
    assert not complete("something went wrong")
    assert not complete("this did not work.")
    assert not complete("v of shape {} does not fit weights of {} heads.")


def test_each_message_names_a_step():
    assert not [f"{place}: {text}" for place, text in messages() if not complete(text)]
