"""Weights as users look at them: any part of the matrix, sums over it, and what follows from it."""
