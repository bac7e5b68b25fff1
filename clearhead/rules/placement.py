"""Placement: where a mask says that queries stand among the keys, and whether masks and rules fit a call.

Responsible for alignment (`align`, `at`, and a cache's queries at the end), for the spans of a call, and for the errors
of masks and rules that leave a query's position open.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clearhead.errors import InputError, ShapeError
from clearhead.rules.document_masks import Documents
from clearhead.rules.mask_kinds import And, Causal, Full, Mask, Not, Or, Window, conjunction
from clearhead.rules.spans import CallGeometry, Span, cut, query_offset


def at_end(mask: Mask) -> Mask:
    """The mask with queries aligned to the last keys, as with a key/value cache, unless it says where they stand."""
    if placed_at(mask) is not None:
        return mask
    aligned = aligned_at_end(mask)
    if states_place(aligned):
        return aligned
    parts = (part for x in conjunction(mask) if not isinstance(x, Documents) for part in x.parts())
    return And(mask, Window(None, None, "end")) if any(reads_query(part) for part in parts) else mask


def aligned_at_end(mask: Mask) -> Mask:
    """The mask with all that aligns queries aligned to the last keys, unless it is aligned already."""
    match mask:
        case Causal(None):
            return Causal("end")
        case Window(left, right, None):
            return Window(left, right, "end")
        case And(a, b) | Or(a, b):
            return type(mask)(aligned_at_end(a), aligned_at_end(b))
        case Not(a):
            return Not(aligned_at_end(a))
    return mask


def split_documents(mask: Mask, queries: int, keys: int) -> tuple[tuple[Span, ...], list[Mask]]:
    """The spans of a mask's documents, or one span of everything, and the masks that apply inside them."""
    factors = list(conjunction(mask))
    packed = [x for x in factors if isinstance(x, Documents)]
    aligns = {x.align for x in mask.parts() if isinstance(x, Causal | Window)}
    words = aligns - {None}
    if len(words) > 1:
        raise InputError(f"{mask!r} aligns at both start and end: use one of them throughout.")
    align, at = words.pop() if words else None, placed_at(mask)
    if align is not None and at is not None:
        raise InputError(f"{mask!r} says align={align!r} and at={at}: use one of them throughout.")
    if at is not None and not packed:
        return cut([Span(0, at + queries, 0, keys, 0)], at, at + queries), factors
    if not packed:
        lone = query_offset(queries, keys, align, mask) if aligns else 0
        return (Span(0, queries, 0, keys, lone),), factors
    if len(packed) > 1:
        raise InputError(f"{mask!r} has several documents(...): use one.")
    if at is not None:
        return packed[0].spans_at(at, queries, keys), [x for x in factors if x is not packed[0]]
    return packed[0].spans(queries, keys, align if aligns else "start"), [x for x in factors if x is not packed[0]]


def placed_at(mask: Mask) -> int | None:
    """The first query's position that a mask states by at=…, if it does."""
    places = {part.at for part in mask.parts() if isinstance(part, Causal | Full | Window) and part.at is not None}
    if len(places) > 1:
        raise InputError(f"{mask!r} has queries at {' and at '.join(map(str, sorted(places)))}: use one place.")
    return places.pop() if places else None


def check_fits(mask: Mask, lead: tuple[int, ...], queries: int, keys: int) -> CallGeometry:
    """Raise ShapeError if a mask, or a mask that it combines, does not fit a call; gives what tables must fit."""
    spans, factors = split_documents(mask, queries, keys)
    places = [(s.first_query + s.offset, s.first_query + s.queries - 1 + s.offset) for s in spans if s.queries]
    firsts, lasts = zip(*places, strict=True) if places else ((0,), (-1,))
    heads = lead[-1] if lead else 1
    placed = placed_at(mask) is not None
    ambiguous = not states_place(mask) and any(s.queries not in (0, s.keys) for s in spans)
    at = CallGeometry(int(np.prod(lead[:-1])), heads, queries, keys, min(firsts), max(lasts), ambiguous, placed)
    for factor in factors:  # `split_documents` has checked and removed a conjoined documents(...)
        for part in factor.parts():
            check_placed(part, mask, at)
            part.check(at)
    return at


def states_place(mask: Mask) -> bool:
    """Whether a mask states where queries stand among a different number of keys."""
    return any(getattr(part, "align", None) or getattr(part, "at", None) is not None for part in mask.parts())


def reads_query(rule: Any) -> bool:
    """Whether a mask or a score rule depends on a query's position; tables of pairs are read by its row."""
    return "query" in rule.formula.expression.leaves


def check_placed(rule: Any, mask: Mask, at: CallGeometry) -> None:
    """Raise ShapeError if a rule reads a query's position, and nothing states it."""
    if at.ambiguous and reads_query(rule):
        reader = "" if rule is mask else f", and {rule!r} reads their positions"
        raise ShapeError(
            f"{mask!r} does not say where {at.queries} queries stand among {at.keys} keys{reader}: say "
            "align='end' if they are the last ones (as with a key/value cache) or align='start' if they are the first, "
            "as by & window(None, None, align='end')."
        )
