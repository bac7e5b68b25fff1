"""Attention in pieces: sums over stretches of keys that are carried on, joined and divided, with the whole's bits."""
