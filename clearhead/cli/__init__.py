"""The `clearhead` command, and the subcommands `run`, `bench` and `doctor`."""

import signal
import threading
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; Ctrl-C ends it quietly from the first import on."""
    try:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # `machine.unbroken` has changed it
        from clearhead.cli import command

        return command.main(arguments)
    except KeyboardInterrupt:
        return 130
