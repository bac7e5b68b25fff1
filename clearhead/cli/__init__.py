"""The `clearhead` command, and the subcommands `run`, `bench` and `doctor`."""

from clearhead.cli.command import main

__all__ = ["main"]
