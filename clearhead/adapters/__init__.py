"""Frameworks that call clearhead: one thin file each, and each imports its framework alone."""
