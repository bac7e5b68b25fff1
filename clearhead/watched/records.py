"""The record of one layer in one run, and its check against the model's own output before anything is shown.

A record holds queries, keys, values and LSE of the chosen heads, but nothing of size queries × keys.
"""

from dataclasses import dataclass, field

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.matrix import Weights, weights
from clearhead.errors import InputError, TrustError
from clearhead.rules.masks import Mask, causal, window
from clearhead.rules.scores import Score, softcap
from clearhead.wording import in_binary_unit

GROWING = ("query", "key", "value", "lse")  # arrays that grow with each pass
TOLERANCES = {
    "float64": 1e-10,
    "float32": 1e-4,
    "float16": 1e-2,
    "bfloat16": 5e-2,
}  # allowed error, as a share of the largest value


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


@dataclass
class Record:
    """One layer in one run: its operands, pass by pass, and some rows of the model's own output for checking.

    Arrays have shape (batch, heads, items, dim), for the chosen heads and their key heads.
    """

    heads: tuple[int, ...]
    key_heads: tuple[int, ...]  # for each head, the index of its key head in `key`
    first_query: int  # position of the first query, the same for keys
    first_key: int
    begins: tuple[int, ...]  # position of each sequence's first token, after its padding
    dtype: str  # of the model's own attention
    scale: float
    cap: float | None
    left: int | None  # sliding window: number of items visible before the query's own
    sink: Array | None
    query: list[Array] = field(default_factory=list)
    key: list[Array] = field(default_factory=list)
    value: list[Array] = field(default_factory=list)
    lse: list[Array] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)  # queries in each
    rows: list[int] = field(default_factory=list)  # positions of the rows in `own`
    own: list[Array] = field(
        default_factory=list
    )  # output of the model's own attention, (batch, heads, value dim) per row
    trusted: bool = False
    complete_passes: int = 0  # passes that all layers have finished

    @property
    def stop(self) -> int:
        """The position after the last query."""
        return self.first_query + sum(self.passes)

    @property
    def nbytes(self) -> int:
        """Bytes of all recorded arrays."""
        return sum(part.nbytes for name in (*GROWING, "own") for part in getattr(self, name))

    def array(self, name: str) -> Array:
        """A growing array, joined."""
        parts: list[Array] = getattr(self, name)
        if len(parts) > 1:
            parts[:] = [np.concatenate(parts, axis=2)]
        return parts[0]

    def cut(self, passes: int) -> None:
        """Keep only the first `passes` passes."""
        removed = sum(self.passes[passes:])
        if removed:
            for name in GROWING:
                array = self.array(name)
                setattr(self, name, [array[:, :, : array.shape[2] - removed].copy()])
        del self.passes[passes:]
        remaining = [n for n, row in enumerate(self.rows) if row < self.stop]
        self.rows, self.own = [self.rows[n] for n in remaining], [self.own[n] for n in remaining]

    @property
    def mask(self) -> Mask:
        """Causal, and the sliding window if there is one."""
        band: Mask = causal(align="end")
        return band if self.left is None else band & window(self.left, None, align="end")

    @property
    def score(self) -> tuple[Score, ...]:
        """The score rules: the model's cap, if it has one."""
        return () if self.cap is None else (softcap(self.cap),)

    def sequence_slices(self, sequence: int) -> tuple[slice, slice]:
        """Slices of the queries and keys of one sequence, without its padding."""
        begin = self.begins[sequence]
        return slice(max(0, begin - self.first_query), None), slice(max(0, begin - self.first_key), None)

    def weights(self, sequence: int) -> Weights:
        """Weights (heads, queries, keys) of one sequence, unchecked."""
        queries, keys = self.sequence_slices(sequence)
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
        """Recompute output rows from the weights; raises TrustError unless they match the model's own output."""
        if self.trusted:
            return
        for sequence in range(len(self.begins)):
            computed, value = self.weights(sequence), self.array("value")[sequence][list(self.key_heads)]
            queries, keys = self.sequence_slices(sequence)
            first = self.first_query + (queries.start or 0)
            limit = TOLERANCES[self.dtype] * float(np.abs(value).max(initial=0))
            for position, own in zip(self.rows, self.own, strict=True):
                if position >= first:
                    recomputed = np.einsum("hk,hkd->hd", computed.row(position - first), value[:, keys])
                    error = np.abs(recomputed - own[sequence]).max(axis=-1)
                    if not (error <= limit).all():
                        head = self.heads[int(np.argmax(np.where(np.isnan(error), np.inf, error)))]
                        raise TrustError(
                            f"layer {layer}, head {head}, position {position}: the output recomputed from "
                            f"recorded arrays differs by {error.max():.2g} (allowed: {limit:.2g}) from the model's own "
                            "attention. This layer is not shown, since its weights would not be those of the model: "
                            "use output_attentions=True with attn_implementation='eager' instead."
                        )
        self.trusted = True
