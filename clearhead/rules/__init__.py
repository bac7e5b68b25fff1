"""Masks and score rules as formulas: frozen, printable values that never need an n×n array."""
