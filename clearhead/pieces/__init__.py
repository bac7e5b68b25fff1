"""Attention in pieces: sums over stretches of keys that are carried on, joined and divided, with the whole's bits."""

from clearhead.pieces.gradients import key_gradients, piece_gradients, query_cut, query_gradient
from clearhead.pieces.partial import Partial, join, partial, segments

__all__ = [
    "Partial",
    "join",
    "key_gradients",
    "partial",
    "piece_gradients",
    "query_cut",
    "query_gradient",
    "segments",
]
