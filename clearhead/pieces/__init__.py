"""Attention in pieces: sums over stretches of keys that are carried on, joined and divided, with the whole's bits."""

from clearhead.pieces.gradients import piece_gradients, query_cut
from clearhead.pieces.partial import segments

__all__ = ["piece_gradients", "query_cut", "segments"]
