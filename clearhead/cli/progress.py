"""The progress bar of a long run, and signals that end it cleanly.

Not responsible for the work itself, which reports how much is done.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType

LINE_SECONDS = 60  # from one line of a log to the next
ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def bar(unit: str, total: int, done: int = 0, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show on standard error how much is done and how long the rest takes; yields a function that advances it.

    A terminal shows a bar; anything else, such as the log of a batch job, gets a line a minute.

    >>> with bar("heads", 2, quiet=True) as advance:
    ...     advance(2)
    """
    pace = Pace(unit, total, done)
    if quiet:
        yield pace.advance
    elif not sys.stderr.isatty():
        yield partial(log_progress, pace)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (BarColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(str(pace), total=max(1, total), completed=done)

            def advance(amount: int) -> None:
                pace.advance(amount)
                progress.update(task, completed=pace.done if total else 1, description=str(pace))

            yield advance


@dataclass
class Pace:
    """How much is done, and how long the rest takes at the mean pace since this process began."""

    unit: str
    total: int
    done: int
    begun: float = field(default_factory=lambda: time.monotonic())
    told: float = field(default_factory=lambda: time.monotonic())  # when the last line was written
    before: int = field(init=False)  # what was done when this process began

    def __post_init__(self) -> None:
        self.before = self.done

    def advance(self, amount: int) -> None:
        self.done += amount

    @property
    def left(self) -> float | None:
        """Seconds left, if that can be told."""
        if self.done == self.before:
            return None
        return (time.monotonic() - self.begun) * (self.total - self.done) / (self.done - self.before)

    def __str__(self) -> str:
        percent = 100 * self.done // self.total if self.total else 100
        left = "" if self.left is None else f", {duration(self.left)} left"
        return f"{percent} % of {amount_text(self.total)} {self.unit}{left}"


def log_progress(pace: Pace, amount: int) -> None:
    """Advance, and write a line if the last one is long ago."""
    pace.advance(amount)
    if time.monotonic() - pace.told >= LINE_SECONDS:
        pace.told = time.monotonic()
        print(f"clearhead: {pace}", file=sys.stderr, flush=True)


def amount_text(amount: int) -> str:
    """A number with three digits and a word.

    >>> amount_text(12), amount_text(12_345), amount_text(500_000_500_000)
    ('12', '12.3 thousand', '500 billion')
    """
    for size, word in ((10**15, "quadrillion"), (10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if amount >= size:
            return f"{amount / size:.3g} {word}"
    return f"{amount / 1000:.3g} thousand" if amount >= 10_000 else str(amount)


def duration(seconds: float) -> str:
    """A time in its two largest units.

    >>> duration(7.4), duration(754), duration(100_000)
    ('7 s', '12 min 34 s', '27 h 46 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
