"""Looking at a whole model: a sheet of its heads, a page about them, and the command that makes both."""
