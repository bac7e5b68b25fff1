"""Masks: which keys a query may see. The functions that make them, and the table of pairs that each one means.

`mask_kinds` has their formulas; `spans` and `placement` say what a position is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import is_integer
from clearhead.errors import InputError, TraceError
from clearhead.rules.document_masks import Documents, checked_lengths, run_lengths
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Formula, immutable_copy
from clearhead.rules.mask_kinds import Blocks, Causal, Dense, Dilated, Full, Mask, Prefix, Stepped, Where, Window
from clearhead.rules.placement import check_fits, split_documents
from clearhead.rules.rule_tables import bool_table
from clearhead.rules.spans import FARTHEST, POSITIONS, Align, Span
from clearhead.rules.trace import function_description, trace
from clearhead.rules.uncalled import check_called


def causal(*, align: Align | None = None, at: int | None = None) -> Causal:
    """Let each item see itself and the items before it.

    `align` is required if the numbers of queries and keys differ: "end" if the queries are the last items
    (chunked prompts, key/value caches), "start" if they are the first. `at=p` says instead that the queries are a
    piece of a longer call, the first at position p among its keys; rules then read positions, and rows of `dense` and
    `bias` tables, of that call. Queries before the first key, as the first of more queries than keys with align="end",
    see nothing: their output is 0. Raises InputError for other words, positions below 0, or both.

    >>> visible(causal(align="end"), queries=2, keys=4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1]])
    >>> visible(causal(at=1), queries=2, keys=4).astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 1, 0]])
    >>> visible(causal(align="end"), queries=3, keys=2).astype(int)
    array([[0, 0],
           [1, 0],
           [1, 1]])
    """
    return Causal(checked_align(align), checked_at(at, align))


def full(*, at: int | None = None) -> Full:
    """Let every item see every item; `at`, the first query's position, matters to rules as for `causal`.

    >>> visible(full(), queries=1, keys=3).astype(int)
    array([[1, 1, 1]])
    """
    return Full(checked_at(at))


def window(left: int | None, right: int | None = 0, *, align: Align | None = None, at: int | None = None) -> Window:
    """Let each item see `left` items before it, itself, and `right` items after it; None means no limit.

    `window(255)` is a sliding window of 256 items as in Mistral's models. `align` and `at` as for `causal`.

    >>> visible(window(1), queries=3, keys=3).astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [0, 1, 1]])
    """
    for name, x in (("left", left), ("right", right)):
        if x is not None and (not is_integer(x) or x < 0):
            raise InputError(f"window's {name}={x!r} is not a number of items: use 0, 1, 2 … or None for no limit.")
    before, behind = (None if n is None else int(n) for n in (left, right))
    return Window(before, behind, checked_align(align), checked_at(at, align))


def dilated(step: int, *, align: Align | None = None, at: int | None = None) -> Dilated:
    """Let each item see itself and those 1, 2, 3 … times `step` items before it.

    `dilated(4) & window(400)` sees 101 of them. `align` and `at` as for `causal`. Raises InputError for a step below 1.

    >>> visible(dilated(2), queries=4, keys=4).astype(int)
    array([[1, 0, 0, 0],
           [0, 1, 0, 0],
           [1, 0, 1, 0],
           [0, 1, 0, 1]])
    """
    if not is_integer(step) or step < 1:
        raise InputError(f"dilated's step={step!r} is not a distance between items: use 1, 2, 3 …")
    return Dilated(causal(align=align, at=at), Stepped(int(step)))


def prefix(length: int) -> Prefix:
    """Let every item see the first `length` items; `causal() | prefix(n)` is a prefix language model.

    >>> visible(causal() | prefix(2), queries=3, keys=3).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    if not is_integer(length) or length < 0:
        raise InputError(f"prefix({length!r}) is not a number of items: use 0, 1, 2 …")
    return Prefix(int(length))


def documents(
    lengths: Sequence[int] | None = None,
    *,
    ids: Sequence[int] | npt.NDArray[Any] | None = None,
    queries: Sequence[int] | None = None,
) -> Documents:
    """Let items see only their own document, where several documents are packed one after another.

    Give the documents' `lengths`, or each item's document number as `ids`, equal numbers adjacent. If documents have
    different numbers of queries and keys, `lengths` counts keys, `queries` counts queries, and `causal` and `window`
    align within each document. Combined by `&`, each document gives the same bits as it would alone.

    >>> visible(documents([1, 2]) & causal(), queries=3, keys=3).astype(int)
    array([[1, 0, 0],
           [0, 1, 0],
           [0, 1, 1]])
    """
    if (lengths is None) == (ids is None):
        raise InputError("documents() needs either lengths or ids: give one of them.")
    if ids is not None:
        lengths = run_lengths(np.asarray(ids))
    assert lengths is not None  # noqa: S101
    own = None if queries is None else checked_lengths("queries", queries, len(lengths))
    return Documents(checked_lengths("lengths", lengths), own)


def blocks(array: npt.ArrayLike, size: int) -> Blocks:
    """Show or hide squares of `size` × `size` pairs, as array[…, query // size, key // size] says.

    `array` is bool with axes (rows, columns), optionally preceded by heads and batches; it is copied.

    >>> visible(blocks([[True, False], [True, True]], 2), queries=3, keys=3).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    table = immutable_copy(bool_table(array, "blocks()", 2))
    if not is_integer(size) or size < 1:
        raise InputError(f"blocks() got size={size!r}, which is not a positive whole number: use 1, 2, 3 …")
    return Blocks(table, int(size))


def dense(array: npt.ArrayLike) -> Dense:
    """Let each query see the keys that a boolean table marks; (queries, keys), optionally after batches and heads.

    Axes of size 1 broadcast. Every call reads the table in place, with any strides. Beside a mask with `at=…`, it is
    the whole call's table.

    >>> visible(dense([[True, False]]), queries=1, keys=2).astype(int)
    array([[1, 0]])
    """
    return Dense(bool_table(array, "dense()", 2))


def where(function: Callable[..., Any]) -> Where:
    """Let function(batch, head, query, key) decide which pairs are visible; it is traced once and compiled.

    It may compare positions, compute with them and use them to index captured arrays, which are copied now. If it
    reads `query`, and there are fewer queries than keys or more, say where the queries stand, as by
    `where(f) & window(None, None, align="end")`. Raises TraceError for code that cannot be traced, such as a Python
    `if` on a position.

    >>> visible(where(lambda batch, head, query, key: (key - query) % 2 == 0), queries=2, keys=2).astype(int)
    array([[1, 0],
           [0, 1]])
    """
    check_called(function, "where's function")
    if isinstance(function, Mask):
        raise InputError(f"where({function!r}) is given a mask: use that without where, as mask={function!r}.")
    if not callable(function):
        raise InputError(f"where({function!r}) is not given a function: give one of (batch, head, query, key).")
    traced = trace(function, POSITIONS)
    if traced.expression.kind != "bool":
        raise TraceError(
            f"{function_description(function)} gives numbers, not conditions: compare something, as in key <= query."
        )
    return Where(function, Formula(traced.expression, tuple(map(immutable_copy, traced.arrays))))


def visible(
    mask: Mask,
    queries: int,
    keys: int,
    rows: npt.NDArray[np.integer] | None = None,
    lead: tuple[int, ...] = (),
) -> npt.NDArray[np.bool_]:
    """The mask as a boolean (queries, keys) table, or some of its rows: the definition of its meaning.

    If it depends on head or batch, the table also has the leading axes `lead`.

    >>> visible(causal(), queries=3, keys=3).astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    spans, rest = split_documents(mask, queries, keys)
    check_fits(mask, lead, queries, keys)
    rows = np.arange(queries) if rows is None else np.asarray(rows)
    seen = np.zeros((len(rows), keys), bool)
    for span in spans:
        mine = (rows >= span.first_query) & (rows < span.first_query + span.queries)
        part = np.zeros(keys, bool)
        part[span.first_key : span.first_key + span.keys] = True
        inside = mine[:, None] & part
        for factor in rest:
            inside = inside & factor_table(factor, rows, span, keys, lead)
        seen = seen | inside
    return seen


def factor_table(
    mask: Mask, rows: npt.NDArray[Any], span: Span, keys: int, lead: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """One mask's formula over some rows and all keys."""
    batches, heads = int(np.prod(lead[:-1])), lead[-1] if lead else 1
    leaves = {
        "batch": np.arange(batches)[:, None, None, None],
        "head": np.arange(heads)[:, None, None],
        "row": rows[:, None] + span.row,
        "query": rows[:, None] + span.offset,
        "key": np.arange(keys),
    }
    seen = np.asarray(evaluate(mask.formula, leaves), bool)
    if seen.ndim <= 2:
        return np.broadcast_to(seen, (len(rows), keys))
    return np.broadcast_to(seen, (batches, heads, len(rows), keys)).reshape(*lead, len(rows), keys)


def checked_align(align: Any) -> Align | None:
    """The alignment, or InputError."""
    if align not in (None, "start", "end"):
        raise InputError(f"align={align!r} is not an alignment: use 'start' or 'end'.")
    return align  # type: ignore[no-any-return]


def checked_at(at: Any, align: Align | None = None) -> int | None:
    """The first query's position, or InputError."""
    if at is None:
        return None
    if align is not None:
        raise InputError(f"align={align!r} and at={at!r} both say where the queries stand: give one of them.")
    if not is_integer(at) or not 0 <= at < FARTHEST:
        raise InputError(f"at={at!r} is not the position of a query among the keys: use 0, 1, 2 …, below 2⁴⁰.")
    return int(at)


CAUSAL = causal()
