"""A call in pieces: sums over stretches of keys or of queries that are joined to the bits of one call."""
