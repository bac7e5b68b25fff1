"""What is kept of one layer in one run, and how it is checked against the model's own output before anything is shown.

Kept are queries, keys, values and LSE of chosen heads, nothing of the size queries × keys.
"""

from dataclasses import dataclass, field

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.matrix import Weights, weights
from clearhead.errors import InputError, TrustError
from clearhead.rules.masks import Mask, causal, window
from clearhead.rules.scores import Score, softcap

GROWING = ("query", "key", "value", "lse")  # arrays of a record that each pass makes longer
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
