"""The record of one layer in one run: what each pass of the model gave its attention, and nothing of queries × keys.

Responsible for adding passes, for removing those that failed, and for the memory that they take. `sequences` puts the
passes of one sequence together.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from clearhead.arrays import Array, Integers
from clearhead.errors import InputError
from clearhead.rules.scores import Score
from clearhead.watched.added import Added
from clearhead.watched.growing import Arriving, Growing
from clearhead.watched.lineage import Continuation
from clearhead.watched.visible import Visible
from clearhead.wording import in_binary_unit


class MemoryLimitError(InputError):
    """A pass of the model needs more memory than the watch may use; `needed` is the number of bytes."""

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


def in_bytes(count: int) -> str:
    """A number of bytes, in the largest unit that keeps it at least 1.

    >>> in_bytes(1000), in_bytes(4096), in_bytes(3 << 29)
    ('1000 bytes', '4 KiB', '1.5 GiB')
    """
    size, unit = in_binary_unit(count)
    name = "bytes" if unit == "B" else unit
    return f"{size:.0f} {name}" if size >= 100 else f"{size:.3g} {name}"


@dataclass(frozen=True, eq=False)
class Pass:
    """One call of a layer: how many queries and keys, how it continues the pass before, and who sees whom."""

    sequences: int
    queries: int
    keys: int
    new: int  # keys that the pass before did not have; they are the last ones
    continues: Continuation | None
    visible: Visible
    added: Added | None = None
    ids: Array | Arriving | None = None  # (sequences, queries): the tokens that were fed in
    checked: tuple[int, ...] = ()  # queries whose output was kept
    output: Array | Arriving | None = None  # (sequences, heads, checked, value dim) of the model itself
    changes: tuple[Any, ...] = ()  # interventions that the model's output contains

    @property
    def nbytes(self) -> int:
        """Bytes of the pass beside its queries, keys and values."""
        arrays = self.visible, self.added, self.ids, self.output
        return sum(x.nbytes for x in arrays if x is not None)


@dataclass(eq=False)
class Record:
    """One layer in one run: its queries, keys and values, pass by pass.

    Arrays are (sequences, heads, items, dim), for the chosen heads and the key heads that they use.
    """

    heads: tuple[int, ...]
    key_heads: tuple[int, ...]  # for each head, the index of its key head in `key`
    count: int  # of all heads of the layer
    dtype: str  # of the model's own attention
    scale: float
    cap: float | None = None
    sink: Array | None = None
    rules: tuple[Score, ...] = ()  # score functions of a model's own
    card: int | None = None  # the NVIDIA GPU where the model computed it, if it did so there
    crosses: bool = False  # queries are of another text than keys, as the layer's name says
    query: Growing = field(default_factory=Growing)
    key: Growing = field(default_factory=Growing)
    value: Growing = field(default_factory=Growing)
    passes: list[Pass] = field(default_factory=list)
    prints: list[Integers | None] = field(default_factory=list)  # fingerprints of the last two passes' keys
    sample: Any = None  # some numbers of the last pass's keys, where the model's tensors are
    tokens: list[Array | None] = field(default_factory=list)  # which of those keys are tokens, (sequences, keys)
    views: dict[int, Any] = field(default_factory=dict)  # sequences as they were put together last; all, if loaded
    loaded_steps: tuple[int, ...] = ()  # of a loaded record, which has no passes

    @property
    def nbytes(self) -> int:
        """Bytes of all recorded arrays."""
        if not self.passes:
            return sum(view.nbytes for view in self.views.values())
        arrays = self.query.nbytes + self.key.nbytes + self.value.nbytes
        return arrays + sum(one.nbytes for one in self.passes)

    @property
    def steps(self) -> tuple[int, ...]:
        """Number of queries of each pass."""
        return tuple(one.queries for one in self.passes) or self.loaded_steps

    @property
    def sequences(self) -> int:
        """Number of sequences of the last pass."""
        return self.passes[-1].sequences if self.passes else len(self.views)

    def add(self, one: Pass, arrays: dict[str, Array | Arriving], prints: Integers | None) -> None:
        """Add a pass."""
        tokens = np.stack([one.visible.tokens_of(row, one.keys) for row in range(one.sequences)])
        self.tokens = [*(None for _ in self.tokens[:-1]), *self.tokens[-1:], tokens]
        for name, array in arrays.items():
            getattr(self, name).append(array)
        self.passes.append(one)
        self.prints = [
            *(None for _ in self.prints[:-1]),
            *self.prints[-1:],
            prints,
        ]  # the last but one, if this one fails
        self.views.clear()

    def join_last(self) -> None:
        """Make one pass of the last two, whose queries see keys of their own pass alone."""
        first, second = self.passes[-2:]
        low, high = (
            np.concatenate([x, y + first.keys], 1)
            for x, y in ((first.visible.low, second.visible.low), (first.visible.high, second.visible.high))
        )
        outputs = [x.output if isinstance(x.output, np.ndarray) else x.output.arrived()
                   for x in (first, second) if x.output is not None]  # fmt: skip
        one = replace(
            first,
            queries=first.queries + second.queries,
            keys=first.keys + second.keys,
            new=first.new + second.new,
            visible=Visible(low, high),
            checked=(*first.checked, *(first.queries + n for n in second.checked)),
            output=np.concatenate(outputs, 2) if outputs else None,
            changes=(*first.changes, *second.changes),
        )
        self.passes[-2:] = [one]
        self.prints[-2:] = [np.concatenate([x for x in self.prints[-2:] if x is not None], 1)]
        self.tokens[-2:] = [np.ones((one.sequences, one.keys), bool)]

    def cut(self, passes: int) -> None:
        """Keep only the first `passes` passes, as when one failed halfway."""
        if passes >= len(self.passes):
            return
        kept = self.passes[:passes]
        self.query.cut(sum(p.queries for p in kept))
        for name in ("key", "value"):
            getattr(self, name).cut(sum(p.new for p in kept))
        self.passes, self.prints, self.tokens = kept, self.prints[:passes], self.tokens[:passes]
        self.views.clear()
