"""Cut a transformers cache to chosen keys, so that a model goes on generating from these.

Responsible for the layers of a `DynamicCache`: what they hold, and that the model goes on counting positions from all
tokens that it has read. It only indexes tensors, so any device and any attention will do. `clearhead.eviction` chooses
keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from transformers.cache_utils import Cache, DynamicLayer

from clearhead.cache.kept import chosen_places
from clearhead.errors import InputError


class KeptLayer(DynamicLayer):
    """A cache layer that has let `dropped` keys go: it is as long as before, but holds fewer."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, dropped: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.dropped = keys, values, dropped

    @property
    def held(self) -> int:
        """The number of keys that are left."""
        return self.get_seq_length() - self.dropped

    def get_seq_length(self) -> int:
        """The number of tokens read, which is the position of the next."""
        return int(super().get_seq_length()) + self.dropped

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """How many keys a mask is for, and the position of the first: they stand side by side before the queries."""
        length, _ = super().get_mask_sizes(query_length)
        return length - self.dropped, self.dropped

    def reset(self) -> None:
        """Begin again without keys."""
        super().reset()
        self.dropped = 0


def keep(cache: Cache, keys: Sequence[npt.ArrayLike]) -> None:
    """Evict all keys and values of a DynamicCache but the chosen ones; the model goes on at the same position.

    `keys` has an entry for each layer: integers (kept,), (key heads, kept) or (sequences, key heads, kept), or
    booleans, as `KeyValueCache.keep` takes them; equally many in each layer, since a model makes one mask for all. The
    next tokens see all that was kept. For models without sliding windows, and sequences without padding. Raises
    InputError, and then evicts nothing.

        with clearhead.watch(model) as seen:
            cache = model(tokens[:, :-1]).past_key_values
        keep(cache, [most(snapkv(seen.layer(n).weights), share=0.25, first=4) for n in seen.layers()])
        model.generate(tokens, past_key_values=cache)
    """
    layers = cache.layers
    if len(keys) != len(layers):
        raise InputError(f"{len(keys)} choices of keys do not fit a cache of {len(layers)} layers: give one for each.")
    new = [kept_layer(layer, one, number) for number, (layer, one) in enumerate(zip(layers, keys, strict=True))]
    counts = sorted({layer.held for layer in new})
    if len(counts) > 1:
        raise InputError(f"the layers keep {counts} keys: keep equally many in each, since a model's mask is for all.")
    layers[:] = new


def kept_layer(layer: Any, keys: npt.ArrayLike, number: int) -> KeptLayer:
    """A layer cut to chosen keys."""
    if type(layer) not in (DynamicLayer, KeptLayer):
        raise InputError(
            f"layer {number} of the cache is a {type(layer).__name__}: keep() cuts a DynamicCache's layers."
        )
    if not layer.is_initialized or not layer.keys.ndim == 4:
        raise InputError(f"layer {number} of the cache is empty: call the model on the prompt first.")
    sequences, heads, count, _ = layer.keys.shape
    plain = keys.cpu().numpy() if isinstance(keys, torch.Tensor) else keys
    places = chosen_places(plain, heads, [count] * sequences, [0] * sequences)
    dropped = getattr(layer, "dropped", 0) + count - places[0].shape[1]
    return KeptLayer(gathered(layer.keys, places), gathered(layer.values, places), dropped)


def gathered(rows: torch.Tensor, places: Sequence[Any]) -> torch.Tensor:
    """The rows (sequences, heads, n, dim) at the places (heads, kept) of each sequence."""
    index = torch.stack([torch.from_numpy(one) for one in places]).to(rows.device)
    return rows.gather(2, index[..., None].expand(*index.shape, rows.shape[-1]))
