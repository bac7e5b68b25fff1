"""Transposition of vectors in registers: squares of 128-bit pieces within whole rows first, then whole pieces move.

A piece is what shuffles reach without crossing a vector's halves, which costs more.
"""

from __future__ import annotations

from collections.abc import Sequence

from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.values import Vector


def columns(f: Code, rows: Sequence[Vector]) -> list[Vector]:
    """As many vectors as each has lanes, transposed."""
    n = piece(f)
    squares = [transpose_squares(f, rows[i : i + n]) for i in range(0, f.lanes, n)]
    exchanged = [exchange_pieces(f, [square[e] for square in squares]) for e in range(n)]
    return [exchanged[e][c] for c in range(f.lanes // n) for e in range(n)]


def piece(f: Code) -> int:
    """Elements in 128 bits."""
    return 16 // f.element.bytes


def transpose_squares(f: Code, rows: Sequence[Vector]) -> list[Vector]:
    """Transpose the n×n squares that n vectors hold in each of their 128-bit pieces."""
    if piece(f) == 2:
        return interleave(f, rows[0], rows[1], 1)
    (a, b), (c, d) = interleave(f, rows[0], rows[1], 1), interleave(f, rows[2], rows[3], 1)
    return [*interleave(f, a, c, 2), *interleave(f, b, d, 2)]


def interleave(f: Code, a: Vector, b: Vector, size: int) -> list[Vector]:
    """The lower halves of a's and b's pieces in turns of `size` elements, and the upper halves likewise."""
    n, half = piece(f), piece(f) // 2
    turns = [source + at + e for at in range(0, half, size) for source in (0, f.lanes) for e in range(size)]
    return [
        f.shuffle(a, b, [start + upper + turn for start in range(0, f.lanes, n) for turn in turns])
        for upper in (0, half)
    ]


def exchange_pieces(f: Code, rows: Sequence[Vector]) -> list[Vector]:
    """Transpose 128-bit pieces among as many vectors as each holds pieces: 1, 2 or 4."""
    if len(rows) == 1:
        return list(rows)
    if len(rows) == 2:
        return [take_pieces(f, rows[0], rows[1], order) for order in ((0, 2), (1, 3))]
    halves = [
        (take_pieces(f, rows[0], rows[1], order), take_pieces(f, rows[2], rows[3], order))
        for order in ((0, 1, 4, 5), (2, 3, 6, 7))
    ]
    return [take_pieces(f, a, b, order) for a, b in halves for order in ((0, 2, 4, 6), (1, 3, 5, 7))]


def take_pieces(f: Code, a: Vector, b: Vector, order: Sequence[int]) -> Vector:
    """A vector of 128-bit pieces of a and b, numbered through both."""
    return f.shuffle(a, b, [piece(f) * number + e for number in order for e in range(piece(f))])
