"""Kinds of random cases, a module each, for `scripts/fuzz`."""
