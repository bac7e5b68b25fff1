"""One run of a model over a text: the records of its layers, by part and number."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clearhead.errors import InputError
from clearhead.watched.records import Record
from clearhead.watched.sequences import Sequence, crosses, extent_of, ids_of, sequence_of
from clearhead.watched.visible import Shown

PARTS_IN_ORDER = (
    "text",
    "decoder",
    "self",
    "encoder",
    "audio",
    "vision",
    "cross",
)  # that are usually asked for
MOST_MORE = 16  # tokens beside an image's patches: a class token, registers


def usual_part(parts: Iterable[str]) -> str:
    """The part that questions are about if they name none.

    >>> usual_part(["encoder", "decoder", "cross"])
    'decoder'
    """
    names = list(parts)
    return next((part for part in PARTS_IN_ORDER if part in names), names[0] if names else "self")


@dataclass(eq=False)
class Run:
    """The records of one text, or of a batch of texts."""

    records: dict[tuple[str, int], Record] = field(default_factory=dict)
    names: dict[int, str] | None = None  # of tokens, if there was a tokenizer
    grids: dict[str, tuple[int, int]] = field(default_factory=dict)  # of each part's patches

    def __repr__(self) -> str:
        layers = ", ".join(f"{part}: {len(numbers)}" for part, numbers in self.parts().items())
        return f"Run(layers={{{layers}}}, nbytes={self.nbytes})"

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        return sum(record.nbytes for record in self.records.values())

    def parts(self) -> dict[str, tuple[int, ...]]:
        """The parts and the numbers of their layers."""
        found: dict[str, list[int]] = {}
        for part, number in self.records:
            found.setdefault(part, []).append(number)
        return {part: tuple(sorted(numbers)) for part, numbers in found.items()}

    def has_grid(self, part: str, grid: tuple[int, int]) -> bool:
        """Whether all layers of a part see the patches of one image, and before them a few tokens that are none."""
        counts = {
            (one.queries, one.keys) for (own, _), record in self.records.items() if own == part for one in record.passes
        }
        patches = grid[0] * grid[1]
        more = {keys - patches for queries, keys in counts if queries == keys}
        return len(counts) == len(more) == 1 and 0 <= min(more) < min(MOST_MORE, patches)

    def token_numbers(self) -> list[int]:
        """The numbers of all tokens that were fed in."""
        ids = (ids_of(one) for record in self.records.values() for one in record.passes)
        return sorted({int(n) for x in ids if x is not None for n in set(np.ravel(x).tolist())})

    def sequence(self, part: str, number: int, sequence: int) -> Sequence:
        """One sequence of a layer; raises InputError if the batch had no such one."""
        record = self.records[part, number]
        if sequence not in range(record.sequences):
            last = record.sequences - 1
            raise InputError(f"sequence {sequence!r} was not in the batch: choose from 0 to {last}.")
        if sequence not in record.views:
            record.views[sequence] = sequence_of(record, (part, number), sequence, self.guide(record))
        found: Sequence = record.views[sequence]
        return found

    def extent(self, part: str, number: int, sequence: int) -> tuple[Shown, tuple[int, ...], tuple[int, ...]]:
        """What a layer's queries see, its heads and the key head of each, without putting its arrays together."""
        record = self.records[part, number]
        found = record.views.get(sequence)
        shown = extent_of(record, sequence, self.guide(record)) if found is None else found.shown
        return shown, tuple(record.heads), tuple(record.key_heads)

    def edits(self, part: str, number: int) -> tuple[Any, ...]:
        """The interventions that changed a layer's weights or values."""
        record = self.records[part, number]
        changes = dict.fromkeys(change for one in record.passes for change in one.changes)
        return tuple(change for change in changes if change.of((part, number)))

    def crosses(self, part: str) -> bool:
        """Whether a part's keys are of another text than its queries."""
        return part == "cross" or any(crosses(x) for (own, _), x in self.records.items() if own == part)

    def guide(self, record: Record) -> Record | None:
        """The self-attention beside a cross-attention, whose passes have the same queries.

        Of several layers the last: its keys tell sequences apart that begin alike.
        """
        if not crosses(record):
            return None
        sizes = [(one.sequences, one.queries) for one in record.passes]
        for other in reversed(self.records.values()):
            if not crosses(other) and [(one.sequences, one.queries) for one in other.passes] == sizes:
                return other
        return None
