"""The language that kernels are written in: vectors, loops, elementary functions, expressions."""
