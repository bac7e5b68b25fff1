"""Calls that give the same answer, timed beside one another: in one process, in turns, in alternating order.

Responsible for clocks, rounds, and for comparing an answer with the definition before its call is timed. `clearhead
bench` and `python -m bench` take all their times from here.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import MachineError
from clearhead.machine.peak import Peak

Call = Callable[[], Any]
Clock = Literal["processor", "wall"]

TURN = 5e-3  # seconds that a contender runs before the next one
MOST_IN_A_TURN = 20
# Windows counts processor time in ticks of 16 ms.
processor_time = time.perf_counter if sys.platform == "win32" else time.process_time
PATIENCE = 4  # times the seconds asked for: what a race may take on the wall, where other work slows it
BATCH = 2e-4  # seconds: shorter calls are timed several at once, or the clock would be measured


@dataclass(frozen=True)
class Contender:
    """A call, and how its answer is read as one array."""

    call: Call
    read: Callable[[Any], Array] = np.asarray


@dataclass(frozen=True)
class Deviation:
    """Absolute error against the float64 definition."""

    mean: float
    max: float


@dataclass(frozen=True)
class Exact:
    """The definition's answer in float64; `pick` takes from a whole answer the part that is known.

    >>> Exact(np.array([1.0, 2.0]), lambda y: y[:2]).deviation(np.array([1.0, 2.5, 9.0]))
    Deviation(mean=0.25, max=0.5)
    """

    values: Array
    pick: Callable[[Array], Array] = lambda answer: answer
    close: float = 1e-4  # the largest error of a right answer

    def deviation(self, answer: Array) -> Deviation:
        """How far an answer is from it."""
        got = self.pick(answer).astype(np.float64)
        if got.shape != self.values.shape:
            raise MachineError(f"an answer has shape {got.shape}, the definition's {self.values.shape}: compare alike.")
        error = np.abs(got - self.values)
        return Deviation(float(error.mean()), float(error.max()))


def checked(contender: Contender, exact: Exact) -> Deviation:
    """The deviation of a contender's answer; raises MachineError where it is wrong, so that nobody times it.

    >>> checked(Contender(lambda: np.array([1.0])), Exact(np.array([1.0])))
    Deviation(mean=0.0, max=0.0)
    """
    deviation = exact.deviation(contender.read(contender.call()))
    if not deviation.max <= exact.close:  # not-a-number is not close either
        raise MachineError(f"an answer is off by {deviation.max:.1e}, so its call is not timed: run clearhead doctor.")
    return deviation


@dataclass(frozen=True)
class Times:
    """Seconds of one call, the least of each round: processor time of all the process's threads, and wall time."""

    processor: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def by(self, clock: Clock) -> list[float]:
        """The rounds' seconds by one clock."""
        return self.processor if clock == "processor" else self.wall

    def least(self, clock: Clock = "processor") -> float:
        """The least of all rounds: what other work on the machine disturbed least."""
        return min(self.by(clock))

    def median(self, clock: Clock = "processor") -> float:
        """The median of the rounds."""
        return median(self.by(clock))

    def ratios(self, other: "Times", clock: Clock = "processor") -> list[float]:
        """How many times as long another call took, round by round, in ascending order."""
        return sorted(b / a for a, b in zip(self.by(clock), other.by(clock), strict=True))


def race(
    calls: Mapping[str, Call],
    seconds: float,
    *,
    peak: Peak | None = None,
    before: Call | None = None,
    rounds: int = 3,
) -> dict[str, Times]:
    """Time calls in turns, for so many seconds of processor time and at least `rounds`, the peak in each round.

    A call that is run several times in its turn finds its own arrays in the caches. With `before`, which may put
    others there, it runs once.

    >>> times = race({"sum": lambda: sum(range(9)), "max": lambda: max(range(9))}, 0.0)
    >>> len(times["sum"].wall), times["sum"].least() > 0
    (3, True)
    """
    expected = {}
    for name, call in calls.items():
        expected[name] = timed(call, 1)[1]  # compiles and allocates
    order = list(calls)
    times = {name: Times() for name in order}
    spent, end, done = processor_time() + seconds, time.perf_counter() + PATIENCE * seconds, 0
    while done < rounds or (processor_time() < spent and time.perf_counter() < end):
        for name in order if done % 2 else reversed(order):
            if before is None:
                processor, wall = turn(calls[name], expected[name])
            else:
                before()
                processor, wall = timed(calls[name], 1)
            times[name].processor.append(processor)
            times[name].wall.append(wall)
            expected[name] = min(expected[name], wall)
        if peak is not None:
            peak.measure()
        done += 1
    return times


def turn(call: Call, expected: float) -> tuple[float, float]:
    """One contender's turn: the least processor and wall seconds of a call."""
    batch = max(1, round(BATCH / max(expected, 1e-9)))
    runs = max(2, min(MOST_IN_A_TURN, int(TURN / (batch * max(expected, 1e-9)))))
    taken = [timed(call, batch) for _ in range(runs if expected < 1 else 1)]
    return min(processor for processor, _ in taken), min(wall for _, wall in taken)


def timed(call: Call, times: int) -> tuple[float, float]:
    """Processor and wall seconds of a call, the mean of so many."""
    processor, wall = processor_time(), time.perf_counter()
    for _ in range(times):
        call()
    spent = processor_time() - processor
    return spent / times, (time.perf_counter() - wall) / times
