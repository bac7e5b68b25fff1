"""What a model's attention did, kept so that any question can be asked later: `with clearhead.watch(model) as seen`.

Decides what is kept (queries, keys, values and LSE of chosen layers and heads, nothing of the size queries × keys), how
it is checked against the model's own output before anything is shown, and how it is written down. Leaves listening to
a framework's model to `adapters.transformers.recording`, and questions to `Weights`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.matrix import Weights, weights
from clearhead.attention_weights.summary import Summary
from clearhead.errors import InputError, TrustError
from clearhead.rules.masks import Mask, causal, window
from clearhead.rules.scores import Score, softcap

GROWING = ("query", "key", "value", "lse")  # arrays of a record that each pass makes longer
USUAL = ("entropy", "distance", "first", "received_mean")
TRUSTED = {"float64": 1e-10, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}  # of the largest value


class RoomError(InputError):
    """A pass of the model needs more memory than the watch was given; `needed` is how many bytes."""

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


def in_bytes(count: int) -> str:
    """A number of bytes, in the largest unit of which it has at least one.

    >>> in_bytes(1000), in_bytes(4096), in_bytes(3 << 29)
    ('1000 bytes', '4 KiB', '1.5 GiB')
    """
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} {units[0]}" if size >= 100 else f"{size:.3g} {units[0]}"


@dataclass
class Record:
    """One layer in one run: what came, pass by pass, and some rows of the model's own output to check it by.

    Arrays are (batch, heads, items, dim), of the chosen heads and the key heads that belong to them.
    """

    heads: tuple[int, ...]
    key_heads: tuple[int, ...]  # for each head, its place among the kept keys
    first_query: int  # position of the first query, the same for keys
    first_key: int
    begins: tuple[int, ...]  # position of each sequence's first token, after its padding
    dtype: str  # that the model's own attention is computed in
    scale: float
    cap: float | None
    left: int | None  # a sliding window sees so many items before its own
    sink: Array | None
    query: list[Array] = field(default_factory=list)
    key: list[Array] = field(default_factory=list)
    value: list[Array] = field(default_factory=list)
    lse: list[Array] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)  # queries in each
    rows: list[int] = field(default_factory=list)  # positions whose own output is known
    own: list[Array] = field(default_factory=list)  # (batch, heads, value dim) for each of them
    trusted: bool = False
    whole: int = 0  # passes that all layers have come through

    @property
    def stop(self) -> int:
        """The position after the last query."""
        return self.first_query + sum(self.passes)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(part.nbytes for name in (*GROWING, "own") for part in getattr(self, name))

    def array(self, name: str) -> Array:
        """A growing array as one."""
        parts: list[Array] = getattr(self, name)
        if len(parts) > 1:
            parts[:] = [np.concatenate(parts, axis=2)]
        return parts[0]

    def cut(self, passes: int) -> None:
        """Keep the first few passes alone."""
        gone = sum(self.passes[passes:])
        if gone:
            for name in GROWING:
                array = self.array(name)
                setattr(self, name, [array[:, :, : array.shape[2] - gone].copy()])
        del self.passes[passes:]
        places = [n for n, row in enumerate(self.rows) if row < self.stop]
        self.rows, self.own = [self.rows[n] for n in places], [self.own[n] for n in places]

    @property
    def mask(self) -> Mask:
        """Causal, and the sliding window if there is one."""
        band: Mask = causal(align="end")
        return band if self.left is None else band & window(self.left, None, align="end")

    @property
    def score(self) -> tuple[Score, ...]:
        """The rules of scores."""
        return () if self.cap is None else (softcap(self.cap),)

    def places(self, sequence: int) -> tuple[slice, slice]:
        """Where a sequence's own queries and keys are, its padding left out."""
        begin = self.begins[sequence]
        return slice(max(0, begin - self.first_query), None), slice(max(0, begin - self.first_key), None)

    def weights(self, sequence: int) -> Weights:
        """(heads, queries, keys) of one sequence, unchecked."""
        queries, keys = self.places(sequence)
        k = self.array("key")[sequence]
        if self.key_heads != tuple(n * len(k) // len(self.heads) for n in range(len(self.heads))):
            k = k[list(self.key_heads)]
        return weights(
            self.array("query")[sequence, :, queries],
            k[:, keys],
            mask=self.mask,
            score=self.score,
            scale=self.scale,
            sink=self.sink,
            lse=self.array("lse")[sequence, :, queries],
        )

    def check(self, layer: int) -> None:
        """Weigh the values by the weights that will be shown; raises TrustError unless the model's output comes out."""
        if self.trusted:
            return
        for sequence in range(len(self.begins)):
            shown, value = self.weights(sequence), self.array("value")[sequence][list(self.key_heads)]
            queries, keys = self.places(sequence)
            first = self.first_query + (queries.start or 0)
            limit = TRUSTED[self.dtype] * float(np.abs(value).max(initial=0))
            for position, own in zip(self.rows, self.own, strict=True):
                if position >= first:
                    again = np.einsum("hk,hkd->hd", shown.row(position - first), value[:, keys])
                    error = np.abs(again - own[sequence]).max(axis=-1)
                    if not (error <= limit).all():
                        head = self.heads[int(np.argmax(np.where(np.isnan(error), np.inf, error)))]
                        raise TrustError(
                            f"layer {layer}, head {head}, position {position}: the output recomputed from what was "
                            f"recorded differs by {error.max():.2g} (allowed: {limit:.2g}) from the model's own "
                            "attention. Nothing of this layer is shown, for its weights would not be those of the "
                            "model: look at it by output_attentions=True with attn_implementation='eager'."
                        )
        self.trusted = True


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
        from clearhead.watching.file import write

        write(self.runs, path, force)


def load_watch(path: str | os.PathLike[str]) -> Watch:
    """Read what `Watch.save` wrote; raises FileError for anything else. Needs neither torch nor the model."""
    from clearhead.watching.file import read

    seen = Watch(None, None, 0)
    seen.runs = read(path)
    seen.memory = seen.spent = seen.nbytes
    return seen


@contextmanager
def watch(
    model: Any,
    *,
    layers: Iterable[int] | None = None,
    heads: Sequence[int] | None = None,
    memory: int = 1 << 30,
) -> Iterator[Watch]:
    """Keep what is needed to look at every attention weight of a transformers model, while it runs inside the block.

    Per watched layer, sequence and token: d numbers for each watched head's query, d and dv for each key head that they
    use, 1 for the LSE. `memory` bounds the bytes of all this: what would exceed it raises InputError, the first
    layer of a prompt already for all that follow. `layers` and `heads` choose; None is all. Inside the block the model
    computes its attention by clearhead; afterwards it is as before. Some rows of each layer are computed by its
    own attention as well (the one it had, or eager), and nothing is shown that does not agree: TrustError.

        with clearhead.watch(model, layers=[0, 5], memory=1 << 28) as seen:
            model.generate(**tokens, max_new_tokens=20)
        seen.layer(5).head(3).weights      # lazy, (tokens, tokens)
        seen.summary("entropy").entropy    # (layers, heads, tokens)
    """
    seen = Watch(checked(layers, "layers"), checked(heads, "heads"), checked_memory(memory))

    from clearhead.adapters.transformers.recording import recording

    with recording(model, seen):
        yield seen


def checked(numbers: Any, name: str) -> tuple[int, ...] | None:
    """Numbers of layers or heads, or None for all."""
    if numbers is None:
        return None
    given = list(numbers) if isinstance(numbers, Iterable) and not isinstance(numbers, str | bytes) else None
    if not given or any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in given):
        raise InputError(
            f"{name}={numbers!r} are no numbers of {name}: give a list, as {name}=[0, 5], or None for all."
        )
    return tuple(int(n) for n in given)


def checked_memory(memory: Any) -> int:
    """A number of bytes."""
    if isinstance(memory, bool) or not isinstance(memory, int | float | np.number) or not 0 < memory < np.inf:
        raise InputError(f"memory={memory!r} is no number of bytes: give one, as memory={1 << 30} for 1 GiB.")
    return int(memory)
