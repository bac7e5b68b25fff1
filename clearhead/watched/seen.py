"""What was seen of a model: runs, in them layers, in them heads, each checked before it is shown.

What is kept and checked is `records`', its file `file`'s, listening `adapters.transformers.recording`'s; questions are
answered by `Weights`.
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
from clearhead.watched.file import read, write
from clearhead.watched.records import Record

USUAL = ("entropy", "distance", "first", "received_mean")


@dataclass(frozen=True)
class Head:
    """One head of one layer, for one sequence."""

    layer: "Layer"
    place: int

    @property
    def weights(self) -> Weights:
        """(queries, keys): every weight, prompt and generated tokens together."""
        return self.layer.weights[self.place]  # type: ignore[no-any-return]

    def step(self, number: int) -> Array:
        """The rows of one pass, (its queries, keys): 0 is the prompt, 1 the first token fed back, and so on."""
        return self.weights[self.layer.rows_of(number)]  # type: ignore[no-any-return]

    def summary(self, *names: str, **options: Any) -> Summary:
        """`Weights.summary` of this head."""
        return self.weights.summary(*names, **options)


@dataclass(frozen=True)
class Layer:
    """One layer of a run as one sequence saw it; it has been checked against the model."""

    record: Record
    number: int
    sequence: int

    @property
    def heads(self) -> tuple[int, ...]:
        """The heads that were watched."""
        return self.record.heads

    @property
    def weights(self) -> Weights:
        """(heads, queries, keys)."""
        return self.record.weights(self.sequence)

    @property
    def values(self) -> Array:
        """(heads, keys, value dim): what the weights weigh."""
        _, keys = self.record.places(self.sequence)
        value: Array = self.record.array("value")[self.sequence][list(self.record.key_heads)][:, keys]
        return value

    def head(self, number: int) -> Head:
        """One head, by its number in the model; raises InputError for one that was not watched."""
        if number not in self.heads:
            raise InputError(f"head {number} of layer {self.number} was not watched: watched are {list(self.heads)}.")
        return Head(self, self.heads.index(number))

    def rows_of(self, number: int) -> slice:
        """The queries of one pass among the rows of `weights`."""
        passes, (own, _) = self.record.passes, self.record.places(self.sequence)
        if number not in range(len(passes)):
            raise InputError(f"step {number} was not seen: there are steps 0 to {len(passes) - 1}.")
        ends = list(accumulate(passes, initial=0))
        return slice(max(0, ends[number] - (own.start or 0)), max(0, ends[number + 1] - (own.start or 0)))


class Watch:
    """What was seen of a model: runs (one for each prompt), in them layers, in them heads.

    Everything shown has been checked: some rows of output, recomputed from what was recorded, are compared with what
    the model's own attention gave, and a layer that differs raises TrustError instead.
    """

    def __init__(self, layers: tuple[int, ...] | None, heads: tuple[int, ...] | None, memory: int) -> None:
        self.chosen_layers, self.chosen_heads, self.memory = layers, heads, memory
        self.runs: list[dict[int, Record]] = []
        self.spent = 0  # bytes of the runs, counted as they grow

    @property
    def nbytes(self) -> int:
        """Bytes that are kept, never more than `memory`."""
        return sum(record.nbytes for run in self.runs for record in run.values())

    def __repr__(self) -> str:
        layers = sorted({number for run in self.runs for number in run})
        return f"Watch(runs={len(self.runs)}, layers={layers}, nbytes={self.nbytes})"

    def layer(self, number: int, *, sequence: int = 0, run: int = -1) -> Layer:
        """One layer of the latest run, or of another; `sequence` is the place in the batch.

        Raises TrustError if it does not reproduce the model's output, InputError for what was not watched.
        """
        records = self.run(run)
        if number not in records:
            raise InputError(f"layer {number} was not watched: watched are {sorted(records)}.")
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
            raise InputError(f"run {number} was not seen, {len(self.runs)} were: {step}.")
        return self.runs[number]

    def layers(self, run: int = -1) -> tuple[int, ...]:
        """The numbers of the layers that were watched."""
        return tuple(sorted(self.run(run)))

    def steps(self, run: int = -1) -> tuple[int, ...]:
        """How many queries each pass had: the prompt's length, then 1 for each generated token that was fed back."""
        records = self.run(run)
        return tuple(records[min(records)].passes)

    def summary(self, *names: str, sequence: int = 0, run: int = -1, **options: Any) -> Summary:
        """`Weights.summary` over all watched layers and heads: each answer is (layers, heads, queries or keys, …).

        Rows are all queries, those of the prompt first, then those of each step. Names default to entropy, distance,
        first and received_mean. One layer is worked on at a time.
        """
        layers = [self.layer(number, sequence=sequence, run=run) for number in self.layers(run)]
        shapes = {layer.weights.shape for layer in layers}
        if len(shapes) > 1:
            raise InputError(
                f"layers with weights of shapes {sorted(shapes)} have no common summary: ask each, as by "
                f"seen.layer({layers[0].number}).weights.summary()."
            )
        answers = [layer.weights.summary(*(names or USUAL), **options) for layer in layers]
        return Summary({name: np.stack([answer[name] for answer in answers]) for name in answers[0]})

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write all of it to a .safetensors file, which appears whole or not at all; raises FileError."""
        write(self.runs, path, force)


def load_watch(path: str | os.PathLike[str]) -> Watch:
    """Read what `Watch.save` wrote; raises FileError for anything else. Needs neither torch nor the model."""
    seen = Watch(None, None, 0)
    seen.runs = read(path)
    seen.memory = seen.spent = seen.nbytes
    return seen
