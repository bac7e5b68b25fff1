"""The recorded attention of a model: runs, layers and heads, each checked before it is shown.

`records` holds and checks the data, `file` saves it, `adapters.transformers.recording` records it, and `Weights`
answers questions.
"""

import os
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.matrix import Weights
from clearhead.attention_weights.summary import Summary
from clearhead.errors import InputError
from clearhead.watched.file import read_watch, write_watch
from clearhead.watched.records import Record

USUAL = ("entropy", "distance", "first", "received_mean")


@dataclass(frozen=True)
class Head:
    """One head of one layer, for one sequence."""

    layer: "Layer"
    index: int  # among the watched heads

    @property
    def weights(self) -> Weights:
        """All weights, (queries, keys), of prompt and generated tokens together."""
        return self.layer.weights[self.index]  # type: ignore[no-any-return]

    def step(self, number: int) -> Array:
        """The rows of one pass, (queries, keys): 0 is the prompt, 1 the first generated token fed back, and so on."""
        return self.weights[self.layer.rows_of(number)]  # type: ignore[no-any-return]

    def summary(self, *names: str, **options: Any) -> Summary:
        """`Weights.summary` of this head."""
        return self.weights.summary(*names, **options)


@dataclass(frozen=True)
class Layer:
    """One layer of a run, for one sequence, checked against the model."""

    record: Record
    number: int
    sequence: int

    @property
    def heads(self) -> tuple[int, ...]:
        """The watched heads."""
        return self.record.heads

    @property
    def weights(self) -> Weights:
        """All weights, (heads, queries, keys)."""
        return self.record.weights(self.sequence)

    @property
    def values(self) -> Array:
        """The values, (heads, keys, value dim)."""
        _, keys = self.record.sequence_slices(self.sequence)
        value: Array = self.record.array("value")[self.sequence][list(self.record.key_heads)][:, keys]
        return value

    def head(self, number: int) -> Head:
        """One head, by its number in the model; raises InputError if it was not watched."""
        if number not in self.heads:
            raise InputError(f"head {number} of layer {self.number} was not watched: choose from {list(self.heads)}.")
        return Head(self, self.heads.index(number))

    def rows_of(self, number: int) -> slice:
        """The queries of one pass among the rows of `weights`."""
        passes, (queries, _) = self.record.passes, self.record.sequence_slices(self.sequence)
        if number not in range(len(passes)):
            raise InputError(f"step {number} was not recorded: choose from 0 to {len(passes) - 1}.")
        ends = list(accumulate(passes, initial=0))
        start = queries.start or 0
        return slice(max(0, ends[number] - start), max(0, ends[number + 1] - start))


class Watch:
    """The recorded attention of a model: runs (one per prompt), each with layers and heads.

    Everything shown is checked: some output rows, recomputed from the recorded arrays, are compared with the output of
    the model's own attention. A layer that differs raises TrustError.
    """

    def __init__(self, layers: tuple[int, ...] | None, heads: tuple[int, ...] | None, memory: int) -> None:
        self.chosen_layers, self.chosen_heads, self.memory = layers, heads, memory
        self.runs: list[dict[int, Record]] = []
        self.spent = 0  # bytes of the runs, counted as they grow

    @property
    def nbytes(self) -> int:
        """Bytes of all records, at most `memory`."""
        return sum(record.nbytes for run in self.runs for record in run.values())

    def __repr__(self) -> str:
        layers = sorted({number for run in self.runs for number in run})
        return f"Watch(runs={len(self.runs)}, layers={layers}, nbytes={self.nbytes})"

    def layer(self, number: int, *, sequence: int = 0, run: int = -1) -> Layer:
        """One layer of the latest run or of `run`; `sequence` is the index in the batch.

        Raises TrustError if it does not reproduce the model's output, InputError if it was not watched.
        """
        records = self.run(run)
        if number not in records:
            raise InputError(f"layer {number} was not watched: choose from {sorted(records)}.")
        record = records[number]
        if sequence not in range(len(record.begins)):
            last = len(record.begins) - 1
            raise InputError(f"sequence {sequence} was not in the batch: choose from 0 to {last}.")
        record.check(number)
        return Layer(record, number, sequence)

    def run(self, number: int) -> dict[int, Record]:
        """The records of one run."""
        if number not in range(-len(self.runs), len(self.runs)):
            step = f"choose from 0 to {len(self.runs) - 1}" if self.runs else "call the model inside the with block"
            raise InputError(f"run {number} was not recorded, only {len(self.runs)} were: {step}.")
        return self.runs[number]

    def layers(self, run: int = -1) -> tuple[int, ...]:
        """The numbers of the watched layers."""
        return tuple(sorted(self.run(run)))

    def steps(self, run: int = -1) -> tuple[int, ...]:
        """Number of queries of each pass: the length of the prompt, then 1 per generated token fed back."""
        records = self.run(run)
        return tuple(records[min(records)].passes)

    def summary(self, *names: str, sequence: int = 0, run: int = -1, **options: Any) -> Summary:
        """`Weights.summary` over all watched layers and heads: each answer is (layers, heads, queries or keys, …).

        Rows are all queries: the prompt first, then each step. Names default to entropy, distance, first and
        received_mean. Processes one layer at a time.
        """
        layers = [self.layer(number, sequence=sequence, run=run) for number in self.layers(run)]
        shapes = {layer.weights.shape for layer in layers}
        if len(shapes) > 1:
            raise InputError(
                f"layers with weights of shapes {sorted(shapes)} have no common summary: ask each one, as with "
                f"seen.layer({layers[0].number}).weights.summary()."
            )
        answers = [layer.weights.summary(*(names or USUAL), **options) for layer in layers]
        return Summary({name: np.stack([answer[name] for answer in answers]) for name in answers[0]})

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Save everything to a .safetensors file, atomically; raises FileError."""
        write_watch(self.runs, path, force)


def load_watch(path: str | os.PathLike[str]) -> Watch:
    """Load a file that `Watch.save` wrote; raises FileError for any other. Needs neither torch nor the model."""
    seen = Watch(None, None, 0)
    seen.runs = read_watch(path)
    seen.memory = seen.spent = seen.nbytes
    return seen
