"""Inspect a whole model: a sheet of its heads, and the command that prints it and writes figures and a page."""
