"""How a training goes: what is measured now and then, as lines of a table that can be drawn later."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from model_training import files, gates
from model_training.network import Sizes
from model_training.training import BATCH, PHASES, Step

EVERY = 250  # steps
TABLE = "model_training.csv"


@dataclass(frozen=True)
class Measured:
    """One line: losses in nats a token (`training` smoothed), and of each kind of head the best score."""

    step: int
    tokens: int
    training: float
    held_out: float
    previous: float
    induction: float
    second_induction: float
    sink: float

    def __str__(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in asdict(self).items())


def measured(step: Step, sizes: Sizes, merges: list[tuple[int, int]]) -> Measured:
    """The network as it would ship now."""
    figures = gates.measure(files.as_shipped(step.network, sizes, merges), 0)
    previous, induction, sink = (
        np.sort(x, axis=None) for x in (figures.heads.previous, figures.heads.induction, figures.heads.sink)
    )
    found = (step.loss, figures.loss.mean, previous[-1], induction[-1], induction[-2], sink[-1])
    return Measured(step.number, step.number * BATCH * sizes.context, *(round(float(x), 4) for x in found))


def is_due(number: int) -> bool:
    """Whether to measure after a step: often in the beginning, when most changes, and at the end."""
    return number % EVERY == 0 or number in (1, 10, 30, 60, 120) or number == sum(phase.steps for phase in PHASES)


def write(path: Path, lines: Iterable[Measured]) -> None:
    """Write a table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Measured)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(line) for line in lines)


def read(path: Path) -> Iterator[Measured]:
    """The lines of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            yield Measured(*(field.type(line[field.name]) for field in fields(Measured)))
