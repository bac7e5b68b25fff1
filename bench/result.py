"""What was measured, as data that JSON keeps: rows, their entries and verdicts, and the machine."""

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

OWN = "clearhead"
PACKAGES = ("clearhead", "numpy", "torch", "onnxruntime", "openvino", "jax", "transformers", "llvmlite")
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Entry:
    """One contender of a row: seconds of a call, and by how much its answer is off."""

    role: Literal["ours", "peer", "reference"]
    seconds: float  # the least
    median: float
    wall: float  # the least by the clock on the wall
    advantage: tuple[float, float, float]  # its time by clearhead's: quartiles and median of the rounds, in order
    mean_error: float | None = None
    max_error: float | None = None
    memory: float | None = None  # MiB: the most beside the operands, while it is called


@dataclass(frozen=True)
class Verdict:
    """A promise and what was measured."""

    what: str
    bound: float
    measured: float
    unit: str
    at_most: bool

    @property
    def kept(self) -> bool:
        """Whether the measurement keeps the promise."""
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound


@dataclass(frozen=True)
class Row:
    """One workload's measurement; a reading has figures in place of entries."""

    group: str
    name: str
    entries: Mapping[str, Entry] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    operations: float = 0.0
    bytes: float = 0.0
    operations_of: Mapping[str, float] = field(default_factory=dict)
    peak: float = 0.0  # GF/s
    clock: str = "processor"
    rounds: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    cause: str = ""
    taken: float = 0.0  # seconds that measuring it took

    @property
    def best_peer(self) -> str | None:
        """The peer with the least time."""
        peers = {name: entry.seconds for name, entry in self.entries.items() if entry.role == "peer"}
        return min(peers, key=peers.__getitem__, default=None)

    @property
    def own(self) -> str | None:
        """The contender that peers are compared with."""
        return next((name for name, entry in self.entries.items() if entry.role == "ours"), None)

    def ratio(self, name: str, reference: str) -> float | None:
        """One contender's time by another's."""
        if name not in self.entries or reference not in self.entries:
            return None
        return self.entries[name].seconds / self.entries[reference].seconds

    def share(self, name: str, reference: str) -> float | None:
        """One contender's rate by another's."""
        ratio = self.ratio(reference, name)
        amount = {other: self.operations_of.get(other, self.operations) for other in (name, reference)}
        return ratio and ratio * (amount[name] / amount[reference] if amount[reference] else 1.0)

    def advantage(self, peer: str | None) -> float | None:
        """How many times as long a peer takes."""
        return None if peer is None or self.own is None else self.ratio(peer, self.own)

    @property
    def of_peak(self) -> float | None:
        """The share of one thread's multiply-add peak."""
        if not (self.own and self.peak and self.operations):
            return None
        return self.operations / self.entries[self.own].seconds / 1e9 / self.peak

    def error_ratio(self, peer: str, which: Literal["mean", "max"]) -> float | None:
        """clearhead's error by a peer's."""
        if peer not in self.entries or self.own is None:
            return None
        ours, theirs = (getattr(self.entries[name], f"{which}_error") for name in (self.own, peer))
        return ours / theirs if ours is not None and theirs else None

    @property
    def missed(self) -> tuple[Verdict, ...]:
        """Promises that the measurement does not keep."""
        return tuple(verdict for verdict in self.verdicts if not verdict.kept)

    @property
    def lost(self) -> bool:
        """Whether a peer is faster."""
        return (self.advantage(self.best_peer) or 2.0) < 1


@dataclass(frozen=True)
class Report:
    """All rows, and where, when and with what they were measured; `failed` groups say why."""

    machine: Mapping[str, Any]
    rows: tuple[Row, ...]
    failed: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """A report as `as_json` wrote it."""
        found = json.loads(text)
        return cls(found["machine"], tuple(row_from(row) for row in found["rows"]), found["failed"])


def joined(reports: Sequence[Report]) -> Report:
    """One report of several: a row that was measured again stands for the earlier one; the last machine is told."""
    rows = {(row.group, row.name): row for report in reports for row in report.rows}
    last = reports[-1]
    minutes = sum(report.machine["minutes"] for report in reports)
    facts = {**last.machine, "minutes": round(minutes, 1)} | ({"parts": len(reports)} if len(reports) > 1 else {})
    return Report(facts, tuple(rows.values()), last.failed)


def row_from(found: Mapping[str, Any]) -> Row:
    """A row from JSON."""
    entries = {
        name: Entry(**entry | {"advantage": tuple(entry["advantage"])}) for name, entry in found["entries"].items()
    }
    return Row(**{**found, "entries": entries, "verdicts": tuple(Verdict(**one) for one in found["verdicts"])})


def machine(**facts: Any) -> dict[str, Any]:
    """Where and when, with which versions, and how busy the machine was."""
    from clearhead.machine.target import target

    return {
        "processor": processor(),
        "vectors": f"{target().isa}, {target().vector_bits} bits",
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version for name in PACKAGES if (version := version_of(name))},
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    } | facts


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    facts = dict(line.split("\t: ", 1) for line in told.replace("\t\t", "\t").splitlines() if "\t: " in line)
    return " ".join(
        f"{facts.get('model name', '')}, family {facts.get('cpu family')}, model {facts.get('model')}".split()
    )


def version_of(name: str) -> str | None:
    """A package's version, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """The commit that is measured."""
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)  # noqa: S603, S607
    return done.stdout.strip() or "unknown"
