"""Weights of CUDA tensors: what is indexed are CUDA tensors, computed where the queries and keys are.

Responsible for tensors as results and for noticing that operands were written to; `clearhead.gpu` computes. Answers to
questions are numpy arrays, as for tensors of the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.card import (
    gpu_module,
    memory_of,
    on_card,
    place_of,
    plain,
    rules_there,
    table_on,
    wants_gradients,
)
from clearhead.adapters.torch.dispatch import needs_operators
from clearhead.adapters.torch.weights import version
from clearhead.arrays import Array, Integers
from clearhead.attention_weights.lazy import LazyMatrix, check_memory
from clearhead.attention_weights.matrix import Weights
from clearhead.definition.canonical import BLOCK
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import problem_of
from clearhead.errors import InputError, ShapeError


@dataclass(frozen=True, eq=False)
class Held:
    """The tensors that weights are computed from, and how often they had been written to."""

    query: torch.Tensor
    key: torch.Tensor
    lse: torch.Tensor
    tables: tuple[torch.Tensor, ...]  # that rules read, as they were given
    copies: tuple[torch.Tensor, ...]  # the same on the card
    versions: tuple[int, ...]

    @property
    def watched(self) -> dict[str, torch.Tensor]:
        """What may not change, by what an error calls it."""
        tables = {f"numbers of table {n} of the rules,": x for n, x in enumerate(self.tables)}
        return {"queries": self.query, "keys": self.key} | tables

    def check(self) -> None:
        """Raise InputError if the queries, keys or tables were written to since."""
        for (name, x), before in zip(self.watched.items(), self.versions, strict=True):
            if version(x) != before:
                raise InputError(
                    f"the {name} of shape {tuple(x.shape)} were changed in place after these weights were made from "
                    "them: read weights earlier, or change a clone."
                )


@dataclass(frozen=True, eq=False, repr=False)
class CardMatrix(LazyMatrix):
    """Numbers of pairs (..., queries, keys) on a card, each computed when it is indexed."""

    held: Held

    def of_heads(self, heads: Integers) -> CardMatrix:
        """The same numbers of some heads."""
        return type(self)(self.source, heads, self.held)

    @property
    def device(self) -> torch.device:
        """The card."""
        return self.held.query.device

    def __getitem__(self, index: Any) -> Any:
        entries = index if isinstance(index, tuple) else (index,)
        if any(not isinstance(x, int | np.integer | slice | type(None) | type(Ellipsis)) for x in entries):
            # Beside a list, numpy takes a number as a list of one, but torch as an axis that goes.
            index = tuple([x] if isinstance(x, int | np.integer) else x for x in entries)
        found = super().__getitem__(index)
        return torch.from_numpy(found.copy()).to(self.device) if isinstance(found, np.ndarray) else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.on_host.__array__(dtype, copy)

    @property
    def on_host(self) -> LazyMatrix:
        """The same numbers as arrays."""
        raise NotImplementedError

    def numbers(self, heads: Integers, rows: Integers, columns: Integers, out: Array | None = None) -> Any:
        """The numbers of all combinations of heads, rows and columns as a tensor; refused above CLEARHEAD_MEMORY."""
        if out is not None:
            raise InputError("out= cannot receive numbers of a GPU: leave it away, and copy the tensor that you get.")
        self.held.check()
        shape = (*heads.shape, len(rows), len(columns))
        check_memory(shape, self.dtype, self.name)
        flat = np.ascontiguousarray(heads.reshape(-1))
        lines, line_of = np.unique(rows, return_inverse=True)
        wanted, positions = np.unique(columns, return_inverse=True)
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > BLOCK) + 1) if len(wanted) else []
        stretches = [(run, self.stretch(flat, lines, int(run[0]), int(run[-1]) + 1)) for run in runs]
        parts = [x[..., self.there(run - run[0])] for run, x in stretches]
        if not parts:
            return self.held.query.new_empty(shape)
        found = (parts[0] if len(parts) == 1 else torch.cat(parts, -1))[..., self.there(positions.reshape(-1))]
        return found[:, self.there(line_of.reshape(-1))].reshape(shape)

    def there(self, numbers: Integers) -> Any:
        """An index of an axis: a slice of numbers that are neighbours, else a tensor on the card."""
        if len(numbers) and np.array_equal(numbers, np.arange(numbers[0], numbers[0] + len(numbers))):
            return slice(int(numbers[0]), int(numbers[-1]) + 1)
        return torch.from_numpy(np.ascontiguousarray(numbers, np.int64)).to(self.device)

    def stretch(self, heads: Integers, rows: Integers, begin: int, end: int) -> torch.Tensor:
        """The numbers of neighbouring keys, (heads, rows, keys)."""
        sweeps: Any = self.source.elsewhere
        launches = gpu_module("sweep_launch")
        out = self.held.query.new_full((len(heads), len(rows), end - begin), self.hidden)
        _, stream = place_of(self.held.query)
        row = out.element_size() * (end - begin)
        place = launches.Place(out.data_ptr(), row * len(rows))
        wanted = launches.Wanted(heads, np.ascontiguousarray(rows, np.int64), begin, end)
        if out.numel():
            raw = self.consumer == "scores"
            sweeps.pairs.write_weights(sweeps.kernels("weights"), wanted, place, row, stream, raw=raw)
        return out


@dataclass(frozen=True, eq=False, repr=False)
class CardScores(CardMatrix):
    """The scores that weights of CUDA tensors come from, −∞ where a key is not seen; indexed as `CardWeights`."""

    name, consumer, hidden = "scores", "scores", -float("inf")

    @property
    def on_host(self) -> LazyMatrix:
        """The same numbers as arrays."""
        return Weights(self.source, self.heads).scores

    def __repr__(self) -> str:
        return f"CardScores(shape={self.shape}, device={str(self.device)!r})"


@dataclass(frozen=True, eq=False, repr=False)
class CardWeights(CardMatrix):
    """The weights of attention over CUDA tensors, (..., queries, keys), with the bits that the CPU gives.

    Index as `clearhead.Weights`: complete heads stay lazy, anything smaller is a CUDA tensor. `summary`, `map` and
    `rows_of` answer with numpy arrays; `weights` are `clearhead.Weights` for all that takes such, with numbers from the
    card.
    """

    name, consumer, hidden = "weights", "block", 0.0

    @property
    def weights(self) -> Weights:
        """`clearhead.Weights` of the same heads, whose numbers are computed on the card and copied."""
        return Weights(self.source, self.heads)

    @property
    def on_host(self) -> LazyMatrix:
        """The same numbers as arrays."""
        return self.weights

    @property
    def scores(self) -> CardScores:
        """The scores that the weights come from."""
        return CardScores(self.source, self.heads, self.held)

    @property
    def lse(self) -> torch.Tensor:
        """Each query's log-sum-exp of scores, (..., queries)."""
        return self.held.lse.reshape(-1, self.held.lse.shape[-1])[torch.from_numpy(self.heads).to(self.device)]

    @property
    def summary(self) -> Any:
        """`Weights.summary`."""
        return self.weights.summary

    @property
    def map(self) -> Any:
        """`Weights.map`."""
        return self.weights.map

    @property
    def rows_of(self) -> Any:
        """`Weights.rows_of`."""
        return self.weights.rows_of

    def __repr__(self) -> str:
        return f"CardWeights(shape={self.shape}, device={str(self.device)!r})"


def card_weights(
    query: torch.Tensor,
    key: torch.Tensor,
    tables: Any,
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
    lse: torch.Tensor | None,
) -> CardWeights:
    """Weights of CUDA tensors; without the LSE, the forward kernel computes it now."""
    if needs_operators() or torch._C._are_functorch_transforms_active():
        raise InputError("weights of CUDA tensors are not compiled, traced or mapped: ask for them outside.")
    wants_gradients(query, key, key, tables, sink)
    query, key, sink = plain(query), plain(key), None if sink is None else plain(sink)
    there = [table_on(x, query) for x in tables]
    if lse is None or any(x.dtype is not torch.float32 for x in (query, key)):
        _, lse = on_card(query, key, key, tables, sink, rule, scale)  # which names what it cannot do
    mask, score = rules_there(rule, tables, there)
    card, stream = place_of(query)
    sinks = None if sink is None else sink.float().cpu().numpy()
    arrays = [memory_of(x).seen_from_here() for x in (query, key)]
    problem = problem_of(Operands(arrays[0], arrays[1], arrays[1]), Rules(mask, score, sinks, scale))
    gpu_module("launch").refuse(gpu_module("launch").limits(problem))
    gpu_module("launch").refuse(gpu_module("launch").unaligned((query.data_ptr(), key.data_ptr())))
    known = check_lse(plain(lse), query, (*problem.lead, problem.queries))
    given = (query, key, *tables)
    held = Held(query, key, known, tuple(tables), tuple(there), tuple(version(x) for x in given))
    pairs = gpu_module("sweep_launch").CardPairs(
        card, problem, query.data_ptr(), key.data_ptr(), known.data_ptr(), held
    )
    module, kernels = gpu_module("weights"), partial(confirmed_on, card, query.shape[-1], stream, pairs.rules)
    source = module.CardSource(
        problem, *arrays, sink=sinks, elsewhere=module.CardSweeps(pairs, kernels, stream, held.check),
        read_lse=lambda: known.cpu().numpy(),
    )  # fmt: skip
    return CardWeights(source, np.arange(problem.heads).reshape(problem.lead), held)


def check_lse(lse: torch.Tensor, query: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The log-sum-exp as a contiguous tensor; raises ShapeError or InputError for that of another call."""
    if tuple(lse.shape) != shape or lse.dtype is not torch.float32:
        raise ShapeError(
            f"lse of shape {tuple(lse.shape)} and {lse.dtype} does not fit query {tuple(query.shape)}: the second "
            f"result of attend(query, key, value, …) has {shape} and torch.float32."
        )
    if lse.device != query.device:
        raise InputError(f"lse is on {lse.device}, query on {query.device}: move it there, as by lse.to(query.device).")
    return lse.contiguous()


def confirmed_on(card: Any, dim: int, stream: int, rules: Any, kind: str) -> Any:
    """A kernel of some kind, compared with the CPU's before its first use."""
    return gpu_module("confirmed").confirmed_kernel(card, kind, dim, stream, rules)
