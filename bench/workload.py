"""What is measured, as data: a workload's contenders, its answer by the definition, and what is promised of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bench.result import OWN, Row
from clearhead.cli.race import Call, Contender, Exact

Make = Callable[[], Contender]
AHEAD = 1.5  # times as fast as the best peer: promised of every prefill, backward and weights workload


@dataclass(frozen=True)
class Promise:
    """A bound on what a row says: from below, or `at_most`. None is measured where what it compares with is missing."""

    what: str
    bound: float
    measured: Callable[[Row], float | None]
    unit: str = "×"
    at_most: bool = False


@dataclass(frozen=True)
class Workload:
    """Calls that give one answer. Each is made only when its turn to be checked comes, since a peer may be missing.

    The first of `ours` is what peers are compared with; `references` are measured beside them and compete with nobody.
    `operations` and `bytes` are what one call needs by definition; `cause` says why a row lags behind, where it does.
    """

    name: str
    exact: Callable[[], Exact] | None  # None where each call has an answer of its own, which tests compare
    ours: Mapping[str, Make]
    peers: Mapping[str, Make] = field(default_factory=dict)
    references: Mapping[str, Make] = field(default_factory=dict)
    operations: float = 0.0
    bytes: float = 0.0
    operations_of: Mapping[str, float] = field(default_factory=dict)  # references that do other work
    promises: tuple[Promise, ...] = ()
    cause: str = ""
    dtype: str = "float32"  # of the peak
    clock: Literal["processor", "wall"] = "processor"
    before: Call | None = None
    memory: bool = False  # each contender's peak, in a process of its own
    rounds: int = 3


@dataclass(frozen=True)
class Reading:
    """Numbers that are not times of calls in turns: of fresh processes, of a browser, of memory."""

    name: str
    take: Callable[[], Mapping[str, float]]
    unit: str
    promises: tuple[Promise, ...] = ()
    cause: str = ""


def ahead(bound: float = AHEAD) -> Promise:
    """The best peer takes so many times as long."""
    return Promise("the best peer's time by clearhead's", bound, lambda row: row.advantage(row.best_peer))


def faster_than(peer: str, bound: float) -> Promise:
    """A peer takes so many times as long."""
    return Promise(f"{peer}'s time by clearhead's", bound, lambda row: row.advantage(peer))


def of_peak(bound: float) -> Promise:
    """The share of the fused multiply-add peak."""
    return Promise("of the multiply-add peak", bound, lambda row: row.of_peak)


def as_exact_as(peer: str) -> tuple[Promise, Promise]:
    """Mean errors no larger than a peer's, and maxima at most half larger."""
    return (
        Promise(f"mean error by {peer}'s", 1.0, lambda row: row.error_ratio(peer, "mean"), at_most=True),
        Promise(f"largest error by {peer}'s", 1.5, lambda row: row.error_ratio(peer, "max"), at_most=True),
    )


def share_of(reference: str, bound: float, ours: str = OWN) -> Promise:
    """The rate as a share of a reference's, each by its own operations."""
    whose = "" if ours == OWN else f" of {ours}"
    return Promise(f"rate{whose} by that of {reference}", bound, lambda row: row.share(ours, reference))


def takes(reference: str, bound: float, ours: str = OWN) -> Promise:
    """The time is at most so many times that of a reference."""
    whose = "" if ours == OWN else f" of {ours}"
    return Promise(f"time{whose} by that of {reference}", bound, lambda row: row.ratio(ours, reference), at_most=True)


def at_most(figure: str, bound: float, unit: str) -> Promise:
    """A reading's bound from above."""
    return Promise(figure, bound, lambda row: row.figures.get(figure), unit, at_most=True)


def at_least(figure: str, bound: float, unit: str) -> Promise:
    """A reading's bound from below."""
    return Promise(figure, bound, lambda row: row.figures.get(figure), unit)
