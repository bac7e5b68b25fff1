"""Attention weights for users: any part of the matrix, sums over it, and results derived from it."""
