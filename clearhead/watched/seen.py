"""The recorded attention of a model: runs, parts, layers and heads, each checked before it is shown.

`records` holds what each pass gave, `sequences` puts a sequence together and checks it, `file` saves it, and `Weights`
answers questions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from clearhead.arrays import Array
from clearhead.attention_weights.labels import token_matches
from clearhead.attention_weights.matrix import Weights
from clearhead.attention_weights.questions import checked_questions
from clearhead.attention_weights.ranking import How, RankedHead, rank_heads
from clearhead.attention_weights.summary import Summary
from clearhead.displayed import Displayed
from clearhead.errors import InputError
from clearhead.watched.file import read_watch, write_watch
from clearhead.watched.run import Run, usual_part
from clearhead.watched.sequences import Sequence, crosses

TOKEN_MATCHES = ("previous", "duplicate", "induction")
USUAL = ("entropy", "distance", "first", "received_mean")


@dataclass(frozen=True, eq=False)
class Head:
    """One head of one layer, for one sequence."""

    layer: Layer
    index: int  # among the watched heads

    def __repr__(self) -> str:
        layer = self.layer
        return f"Head(part={layer.part!r}, layer={layer.number}, number={layer.heads[self.index]}, {layer.extent})"

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


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a run, for one sequence, checked against the model."""

    sequence: Sequence = field(repr=False)  # all its arrays
    part: str
    number: int

    def __repr__(self) -> str:
        return f"Layer(part={self.part!r}, number={self.number}, heads={len(self.heads)}, {self.extent})"

    @property
    def extent(self) -> str:
        """How many queries and keys there are."""
        _, queries, keys = self.weights.shape
        return f"queries={queries}, keys={keys}"

    @property
    def heads(self) -> tuple[int, ...]:
        """The watched heads."""
        return self.sequence.record.heads

    @property
    def weights(self) -> Weights:
        """All weights, (heads, queries, keys)."""
        return self.sequence.weights

    @property
    def values(self) -> Array:
        """The values, (heads, keys, value dim)."""
        return self.sequence.values

    @property
    def steps(self) -> tuple[int, ...]:
        """Number of queries of each pass."""
        return self.sequence.steps

    @property
    def changes(self) -> tuple[Any, ...]:
        """The interventions that this layer's output contains."""
        return self.sequence.changes

    def head(self, number: int) -> Head:
        """One head, by its number in the model; a negative one counts from the last watched head.

        Raises InputError if it was not watched.
        """
        if number in range(-len(self.heads), 0):
            number = self.heads[number]
        if number not in self.heads:
            raise InputError(
                f"head {number!r} of layer {self.number} was not watched: choose from {list(self.heads)}, or -1 for "
                "the last of them, -2, and so on."
            )
        return Head(self, self.heads.index(number))

    def rows_of(self, number: int) -> slice:
        """The queries of one pass among the rows of `weights`."""
        if number not in range(len(self.steps)):
            raise InputError(f"step {number!r} was not recorded: choose from 0 to {len(self.steps) - 1}.")
        ends = list(accumulate(self.steps, initial=0))
        return slice(ends[number], ends[number + 1])


class Watch(Displayed):
    """The recorded attention of a model: runs (one for each text), each with parts, layers and heads.

    Everything shown is checked: some output rows, recomputed from the recorded arrays, are compared with the model's
    own output. A layer that differs raises TrustError.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.runs: list[Run] = []
        self.spent = 0  # bytes of the runs, counted as they grow
        self.stopped = ""  # why recording ended before the model did, if it did

    @property
    def nbytes(self) -> int:
        """Bytes of all records, at most `memory`."""
        return sum(run.nbytes for run in self.runs)

    def __repr__(self) -> str:
        parts = {part: len(numbers) for run in self.runs for part, numbers in run.parts().items()}
        layers = ", ".join(f"{part}: {count}" for part, count in parts.items())
        stopped = f", stopped: {self.stopped}" if self.stopped else ""
        return f"Watch(runs={len(self.runs)}, layers={{{layers}}}, nbytes={self.nbytes}{stopped})"

    # Choosing

    def run(self, number: int) -> Run:
        """One run; raises InputError if there is none of this number."""
        if number not in range(-len(self.runs), len(self.runs)):
            step = f"choose from 0 to {len(self.runs) - 1}" if self.runs else "call the model inside the with block"
            raise InputError(f"run {number!r} was not recorded, only {len(self.runs)} were: {step}.")
        return self.runs[number]

    def parts(self, run: int = -1) -> dict[str, tuple[int, ...]]:
        """The parts of the model that were watched, with the numbers of their layers.

        A part is a stack of layers: `decoder`, `encoder`, `cross`, `text`, `vision`, `audio`, `self`, or its path in
        the model.
        """
        return self.run(run).parts()

    def part(self, name: str | None = None, run: int = -1) -> str:
        """The part of this name; without one, the first of those usually asked for."""
        parts = self.parts(run)
        if name is None:
            return usual_part(parts)
        if name not in parts:
            raise InputError(f"part {name!r} was not watched: choose from {', '.join(parts)}.")
        return name

    def layers(self, run: int = -1, *, part: str | None = None) -> tuple[int, ...]:
        """The numbers of the watched layers of a part."""
        return self.parts(run).get(self.part(part, run), ())

    def layer(self, number: int, *, sequence: int = 0, run: int = -1, part: str | None = None) -> Layer:
        """One layer of the latest run or of `run`; `sequence` is the index in the batch.

        A negative number counts from the last watched layer. Raises TrustError if it does not reproduce the model's
        output, InputError if it was not watched.
        """
        name = self.part(part, run)
        records, known = self.run(run), sorted(self.layers(run, part=name))
        if number in range(-len(known), 0):
            number = known[number]
        if (name, number) not in records.records:
            raise InputError(
                f"layer {number!r} was not watched: choose from {known}, or -1 for the last of them, -2, and so on."
            )
        found = records.sequence(name, number, sequence)
        found.check(f"layer {number}" if name == self.part(None, run) else f"layer {number} of {name}")
        return Layer(found, name, number)

    def sequences(self, run: int = -1, *, part: str | None = None) -> int:
        """How many sequences the last pass had."""
        name = self.part(part, run)
        records = self.run(run).records
        return max((r.sequences for (own, _), r in records.items() if own == name), default=0)

    # Asking

    def steps(self, run: int = -1, *, part: str | None = None) -> tuple[int, ...]:
        """Number of queries of each pass: the length of the prompt, then 1 per generated token fed back."""
        name, records = self.part(part, run), self.run(run).records
        first = min(number for own, number in records if own == name)
        return records[name, first].steps

    def token_ids(self, *, sequence: int = 0, run: int = -1, part: str | None = None) -> Array:
        """The numbers of the tokens that a sequence's queries are, prompt and generated ones, without padding."""
        name = self.part(part, run)
        number = self.layers(run, part=name)[0]
        ids = self.run(run).sequence(name, number, sequence).query_ids
        if ids is None:
            whose = "the model" if name == "self" else name
            raise InputError(f"the tokens of {whose} were not seen: it was given embeddings, images or sound.")
        return ids

    def tokens(self, *, sequence: int = 0, run: int = -1, part: str | None = None) -> list[str]:
        """The tokens of a sequence as text, if `watch` was given a tokenizer."""
        ids, names = self.token_ids(sequence=sequence, run=run, part=part), self.run(run).names
        if names is None:
            raise InputError("these tokens have no text: give watch(model, tokenizer=…), or take seen.token_ids().")
        return [names[int(n)] for n in ids]

    def compared_ids(self, question: str, part: str, *, sequence: int, run: int) -> Array:
        """The tokens of a part whose queries are its keys; raises InputError where they are not."""
        ids = self.token_ids(sequence=sequence, run=run, part=part)
        layer = self.layer(self.layers(run, part=part)[0], sequence=sequence, run=run, part=part)
        if crosses(layer.sequence.record) or layer.weights.shape[-1] != len(ids):
            raise InputError(
                f"{question!r} compares tokens with those before them, but the {layer.weights.shape[-1]} keys of "
                f"{part} are not its {len(ids)} queries: give labels of your own by matches={{name: (queries, keys)}}."
            )
        return ids

    def grid(self, run: int = -1, *, part: str | None = None) -> tuple[int, int]:
        """The rows and columns of an image's patches; the part's further keys stand before them.

        Without `part`, that of the part which takes images.
        """
        grids = self.run(run).grids
        name = next(iter(grids), None) if part is None else self.part(part, run)
        if name not in grids:
            of = "this model" if part is None else f"part {part!r}"
            raise InputError(f"{of} has no grid of patches: watch a model that cuts images of one size into patches.")
        return grids[name]

    def __iter__(self) -> Iterator[Layer]:
        """The layers of the latest run's usual part, first to last."""
        return (self.layer(number) for number in self.layers())

    def summary(
        self, *names: str, sequence: int = 0, run: int = -1, part: str | None = None, **options: Any
    ) -> Summary:
        """`Weights.summary` over all watched layers and heads: each answer is (layers, heads, queries or keys, …).

        Rows are all queries: the prompt first, then each step. Names default to entropy, distance, first and
        received_mean; besides those of Weights.summary there are `previous`, `duplicate` and `induction`, the matches
        of the watched tokens. Processes one layer at a time.
        """
        name = self.part(part, run)
        checked_questions([question for question in names if question not in TOKEN_MATCHES], also=TOKEN_MATCHES)
        asked = [question for question in names if question in TOKEN_MATCHES]
        if asked:
            ids = token_matches(self.compared_ids(asked[0], name, sequence=sequence, run=run))
            given = options.get("matches", {})  # Weights.summary refuses what is no mapping
            own = {question: ids[question] for question in asked}
            options["matches"] = own | dict(given) if isinstance(given, Mapping) else given
            names = (*(question for question in names if question not in asked), "matches")
        layers = [self.layer(number, sequence=sequence, run=run, part=name) for number in self.layers(run, part=name)]
        shapes = {layer.weights.shape for layer in layers}
        if len(shapes) > 1:
            raise InputError(
                f"layers with weights of shapes {sorted(shapes)} have no common summary: ask each one, as with "
                f"seen.layer({layers[0].number}).weights.summary()."
            )
        answers = [layer.weights.summary(*(names or USUAL), **options) for layer in layers]
        return Summary.stack(answers)

    def find(
        self,
        question: str,
        *,
        most: int = 10,
        how: How = "mean",
        smallest: bool = False,
        sequence: int = 0,
        run: int = -1,
        part: str | None = None,
        **options: Any,
    ) -> list[RankedHead]:
        """The heads with the largest answers to a question (or the `smallest`), in order.

        `question` is one of `summary`, with a number for each query or key, a token match (`previous`, `duplicate`,
        `induction`), or the name of one of the `groups` or `matches` that are given. `how` makes one number of all
        queries (`queries=…` restricts them): their "mean", the "last" or the "max". Raises InputError.

            seen.find("induction")
            seen.find("needle", groups={"needle": [31, 32]}, queries=[-1], most=3)
        """
        given = {kind: options.get(kind) for kind in ("groups", "matches")}
        named = {kind: dict(names) if isinstance(names, Mapping) else {} for kind, names in given.items()}
        family = next((kind for kind, names in named.items() if question in names), None)
        if family is None and question in TOKEN_MATCHES:
            family, options = "matches", options | {"matches": {}}
            asked = question
        else:
            asked = question if family is None else family
        if family is not None and question in named[family]:
            options[family] = {question: named[family][question]}
        name = self.part(part, run)
        answers = self.summary(asked, sequence=sequence, run=run, part=name, **options)
        if family is None and (question not in answers or answers[question].ndim != 3):
            raise InputError(
                f"{question!r} has no single number for each query or key: rank heads by another question."
            )
        x = answers[question] if family is None else answers[family][..., 0]
        layers = self.layers(run, part=name)
        heads = self.layer(layers[0], sequence=sequence, run=run, part=name).heads
        return rank_heads(x, how, most, smallest=smallest, layers=layers, heads=heads)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Save everything to a .safetensors file, atomically; raises FileError."""
        write_watch(self.runs, path, force)


def load_watch(path: str | os.PathLike[str]) -> Watch:
    """Load a file that `Watch.save` wrote; raises FileError for any other. Needs neither torch nor the model."""
    seen = Watch(0)
    seen.runs = read_watch(path)
    seen.memory = seen.spent = seen.nbytes
    return seen
