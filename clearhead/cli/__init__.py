"""The `clearhead` command, and the subcommands `run`, `bench` and `doctor`."""

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; Ctrl-C ends it quietly from the first import on."""
    try:
        from clearhead.cli import command

        return command.main(arguments)
    except KeyboardInterrupt:
        return 130
