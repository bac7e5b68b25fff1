"""Attention in pieces: sums over stretches of keys or of queries that are carried on and joined to the whole's bits."""
