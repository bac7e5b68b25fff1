"""Frameworks that call clearhead: a room each, and each imports its framework alone."""
