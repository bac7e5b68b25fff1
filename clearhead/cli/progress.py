"""The progress bar of a long run, and signals that end it cleanly.

Not responsible for the work itself, which reports how much is done.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def bar(unit: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error if that is a terminal; yields a function that advances it.

    >>> with bar("heads", 2, quiet=True) as advance:
    ...     advance(2)
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(unit, total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def clean_endings() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the program as Ctrl-C does, so that unfinished files are removed."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    in_main = threading.current_thread() is threading.main_thread()  # only the main thread may set handlers
    before = {s: signal.getsignal(s) for s in ENDING_SIGNALS if in_main}
    before = {s: handler for s, handler in before.items() if handler not in (None, signal.SIG_IGN)}  # respects nohup
    for ending in before:
        signal.signal(ending, end)
    try:
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)
