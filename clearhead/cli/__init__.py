"""The `clearhead` command and the subcommands that have no room of their own."""

from clearhead.cli.command import main

__all__ = ["main"]
