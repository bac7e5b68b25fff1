"""Parses and prints rules in the command line's notation.

causal   full   window:255   window:255,3   dilated:4   prefix:10   documents:5,7,3   joined by & and |, negated by ~
softcap:30   scale:0.5   alibi          and file.py:function for your own rule
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearhead.errors import ClearheadError, FileError, InputError, reason
from clearhead.rules.document_masks import Documents
from clearhead.rules.mask_kinds import And, Causal, Dilated, Full, Mask, Not, Or, Prefix, Window
from clearhead.rules.masks import causal, dilated, documents, full, prefix, window
from clearhead.rules.placement import aligned_at_end, states_place
from clearhead.rules.scores import Alibi, Scale, Score, Softcap, alibi, as_rule, scale, softcap
from clearhead.rules.spans import Align

MASKS = (
    "causal, full, window:LEFT[,RIGHT], dilated:STEP, prefix:N and documents:LENGTHS, joined by & and |, negated by ~"
)
SCORES = "softcap:CAP, scale:FACTOR and alibi"


def named_mask(text: str, align: str | None = None) -> Mask:
    """Parse a mask; `align` places queries among keys.

    >>> named_mask("causal | prefix:3"), named_mask("window:255", "end")
    (causal() | prefix(3), window(255, 0, align='end'))
    """
    if set(text) & set("()[]"):
        raise InputError(
            f"--mask {text} has brackets, and masks are typed without: & binds tighter than |, so write a & (b | c) as "
            "a & b | a & c, and ~(a | b) as ~a & ~b."
        )
    if align not in (None, "start", "end"):
        raise InputError(f"align={align!r} is not an alignment: use start or end.")
    mask = parse_alternatives(text, align)  # type: ignore[arg-type]
    mask = aligned_at_end(mask) if align == "end" else mask
    if align and not states_place(mask):  # rules may read positions, too
        mask = mask & window(None, None, align=align)  # type: ignore[arg-type]
    return mask


def parse_alternatives(text: str, align: Align | None) -> Mask:
    """Masks joined by |, which binds weakest."""
    first, *others = (parse_conjunction(part, align) for part in text.split("|"))
    for other in others:
        first = first | other
    return first


def parse_conjunction(text: str, align: Align | None) -> Mask:
    """Masks joined by &."""
    first, *others = (parse_single_mask(part.strip(), align) for part in text.split("&"))
    for other in others:
        first = first & other
    return first


def parse_single_mask(text: str, align: Align | None) -> Mask:
    """One mask."""
    if text.startswith("~"):
        return ~parse_single_mask(text[1:].strip(), align)
    name, _, argument = text.partition(":")
    start: Align | None = "start" if align == "start" else None
    match name:
        case "causal" if not argument:
            return causal(align=start)
        case "full" if not argument:
            return full()
        case "window":
            return window(*parse_integers(text, argument, "window:255 or window:64,8", most=2), align=start)
        case "dilated":
            return dilated(*parse_integers(text, argument, "dilated:2", most=1), align=start)
        case "prefix":
            return prefix(*parse_integers(text, argument, "prefix:100", most=1))
        case "documents":
            return documents(parse_integers(text, argument, "documents:5,7,3"))
    raise InputError(f"{text!r} is not a mask: use {MASKS}.")


def parse_integers(text: str, argument: str, example: str, most: int | None = None) -> list[int]:
    """Integers separated by commas, at most so many."""
    if not re.fullmatch(r"\d+(,\d+)*", argument):
        raise InputError(f"{text!r} needs whole numbers after its colon: write {example}.")
    numbers = [int(part) for part in argument.split(",")]
    if most is not None and len(numbers) > most:
        raise InputError(f"{text!r} has {len(numbers)} numbers after its colon, {most} at most: write {example}.")
    return numbers


def name_of_mask(mask: Mask) -> str:
    """A mask in the command line's notation, or as Python if it cannot be typed there.

    >>> name_of_mask(window(2) | ~prefix(3)), name_of_mask(causal() & (full() | prefix(2)))
    ('window:2 | ~prefix:3', 'causal() & (full() | prefix(2))')
    """
    return mask_text(mask) or repr(mask)


def mask_text(mask: Mask) -> str | None:
    """A mask in the command line's notation, which has no brackets; None if it needs them."""
    match mask:
        case Causal():
            return "causal"
        case Full():
            return "full"
        case Window(int(left), right) if right is not None:
            return f"window:{left},{right}" if right else f"window:{left}"
        case Dilated(_, b):
            return f"dilated:{b.step}"
        case Prefix(length):
            return f"prefix:{length}"
        case Documents(lengths, None):
            return f"documents:{','.join(map(str, lengths))}"
        case Not(a) if isinstance(a, Dilated) or not isinstance(a, And | Or):
            own = mask_text(a)
            return own and f"~{own}"
        case Or(a, b) | And(a, b) if isinstance(mask, Or) or not (isinstance(a, Or) or isinstance(b, Or)):
            both = mask_text(a), mask_text(b)
            return f"{both[0]} {'|' if isinstance(mask, Or) else '&'} {both[1]}" if all(both) else None
    return None


def name_of_score(rule: Score) -> str:
    """A score rule in the command line's notation; other rules as Python, functions by name.

    >>> name_of_score(softcap(30)), name_of_score(alibi(8))
    ('softcap:30', 'alibi')
    """
    match rule:
        case Softcap(cap):
            return f"softcap:{number_text(cap)}"
        case Scale(factor):
            return f"scale:{number_text(factor)}"
        case Alibi():
            return "alibi"
    return repr(rule)


def number_text(value: float) -> str:
    """A number without a trailing .0."""
    return repr(value).removesuffix(".0")


def named_score(text: str, heads: int) -> Score:
    """Parse a score rule for a number of heads.

    >>> named_score("softcap:30", 8), named_score("alibi", 8)
    (softcap(30.0), alibi(slopes(8,)))
    """
    name, _, argument = text.partition(":")
    makers: dict[str, Callable[[float], Score]] = {"softcap": softcap, "scale": scale}
    if text == "alibi":
        return alibi(heads)
    if name not in makers:
        raise InputError(f"{text!r} is not a score rule: use {SCORES}, or --rule file.py:function for your own.")
    try:
        return makers[name](float(argument))
    except ClearheadError:
        raise
    except ValueError:
        raise InputError(f"{text!r} needs a number after its colon, as in {name}:30.") from None


def rule_from_file(text: str) -> Score:
    """Run a Python file and return its function of (score, batch, head, query, key): `file.py:function`."""
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise InputError(f"--rule {text} does not name a function: write file.py:function.")
    return as_rule(load_function(Path(path), name))


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """Run a Python file and return one of its functions."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise FileError(f"{path} is not there: give a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise FileError(f"{path} cannot be run: {type(error).__name__}: {reason(error)}.") from None
    function = getattr(module, name, None)
    if not callable(function):
        has = ", ".join(n for n, x in vars(module).items() if callable(x) and not n.startswith("_")) or "none"
        raise FileError(f"{path} has no function {name}; its functions: {has}.")
    return function  # type: ignore[no-any-return]
