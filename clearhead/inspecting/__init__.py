"""Inspect a whole model: a sheet of its heads, an HTML page about them, and the command that writes both."""
