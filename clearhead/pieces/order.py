"""The order in which gradients of pieces are added: where stretches may be cut, and which one comes next."""

from typing import Any

import numpy as np

from clearhead.arrays import Array, is_integer
from clearhead.definition.canonical import SEGMENT
from clearhead.errors import InputError, ShapeError
from clearhead.gradients.launch import BackwardLaunch
from clearhead.kernels.abi.gradient_call import GRADIENT_BLOCK
from clearhead.pieces.origin import check_same
from clearhead.pieces.sums import KeyGradients
from clearhead.rules.spans import Span

EVERYWHERE = 6144  # a cut of queries that serves every processor: the least common multiple of the tiles times 32


def check_sums_so_far(before: object, kind: type) -> None:
    """Check that `before` is a result, which knows where it ended, and not its arrays."""
    if before is not None and not isinstance(before, kind):
        raise InputError(f"before is a {type(before).__name__}: pass the whole {kind.__name__} of the stretch before.")


def check_before(
    whose: str,
    sums: tuple[Array, ...],
    zeros: tuple[Array, ...],
    dtypes: tuple["np.dtype[Any]", "np.dtype[Any]"],
    isas: tuple[str, str],
) -> None:
    """Check that sums so far are those of the same operands, from the same instruction set: so far, and now."""
    check_same("operands of dtype", *dtypes, "before")
    check_same("instruction set", *isas, "before")
    for own, wanted in zip(sums, zeros, strict=True):
        if own.shape != wanted.shape or own.dtype != wanted.dtype:
            raise ShapeError(
                f"before holds the gradient of {whose} of shape {own.shape} ({own.dtype}), these need {wanted.shape} "
                f"({wanted.dtype}): give the result for the same {whose}."
            )


def check_key_cut(spans: tuple[Span, ...], first_key: int) -> None:
    """Check that no block of keys is cut: blocks are counted from the first key of all, or of a document."""
    for span in spans:
        inside = first_key - span.first_key
        if 0 < inside < span.keys and inside % GRADIENT_BLOCK:
            start = f" from the document's first on, which is at {span.first_key}" if span.first_key else ""
            raise InputError(
                f"keys are cut at multiples of {GRADIENT_BLOCK}{start} ({SEGMENT} serves the forward pass too): got "
                f"first_key={first_key}."
            )


def check_first_query(first_query: Any, at: int) -> int:
    """The position of the whole call's first query; raises InputError for anything else."""
    if not is_integer(first_query) or not 0 <= first_query <= at:
        raise InputError(
            f"first_query={first_query!r} is not the position of the whole call's first query: use 0 to {at}, where "
            "these begin."
        )
    return int(first_query)


def check_query_cut(launch: BackwardLaunch, at: int, first_query: int) -> None:
    """Check that no tile of queries is cut: tiles are counted from the call's first query, or a document's."""
    tile, place = launch.spec.tile.queries, launch.spec.target
    for span in launch.problem.rules.spans:
        inside = at - max(span.first_key, first_query)
        if inside > 0 and inside % tile:
            whose = "document" if span.first_key > first_query else "call"
            start = f" from the {whose}'s first on, which is at {at - inside}," if at != inside else ""
            raise InputError(
                f"queries are cut at multiples of {tile}{start} on {place.isa} ({EVERYWHERE} serves every processor): "
                f"got {at}. If the whole call's queries do not begin at {first_query}, give first_query=."
            )


def heads_so_far(
    before: KeyGradients | None, head: tuple[int, int] | None, at: int, stop: int, group: int
) -> tuple[int, int | None]:
    """Where the queries of each head begin, and where those of a finished head ended.

    Sums go head after head: each goes on at the query where it stopped; the next one begins and ends where the first
    one did. A call without `head` has all queries of `group` heads.
    """
    number, heads = head or (0, group)
    together = head is None and group > 1
    if before is None:
        if number:
            raise InputError(f"head={head}: sums go head after head, so those of head 0 come first.")
        return at, None
    if before.head[1] != heads:
        raise InputError(
            f"{before.head[1]} heads share a key head in what was added so far, {heads} here: give the same heads."
        )
    if together:
        raise InputError(
            f"the gradients hold all queries of {heads} heads of each group, from {before.first} to {before.stop}, "
            f"these begin at {at}: sums go head after head; give q[..., i::{heads}, :, :] with head=(i, {heads}), all "
            "queries of i = 0 before those of i = 1."
        )
    last, ended = before.head[0], before.stop == (before.end or before.stop)
    wanted = before.stop if number == last else before.first
    if number not in (last, last + 1) or at != wanted or (number > last and not ended):
        raise InputError(
            f"the gradients end at query {before.stop} of head {last} in each group, these begin at query {at} of head "
            f"{number}: queries go in ascending order without a gap, and head after head, each from {before.first} to "
            f"{'its last' if before.end is None else before.end}."
        )
    end = before.end if number == last else before.stop
    if end is not None and stop > end:
        raise InputError(f"head 0 of each group ended at query {end}, head {number} at {stop}: give the same queries.")
    return before.first, end


def checked_head(head: Any) -> tuple[int, int] | None:
    """Which head of each group is given, and how many there are; None if all or the only one."""
    if head is None:
        return None
    if not (isinstance(head, tuple) and len(head) == 2 and all(map(is_integer, head)) and 0 <= head[0] < head[1]):
        raise InputError(f"head={head!r} is not a query head of a group: use (0, 4) for the first of four, to (3, 4).")
    return None if head[1] == 1 else head
