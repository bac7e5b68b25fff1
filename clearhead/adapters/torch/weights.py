"""Attention weights as tensors that all torch functions accept, without building the matrix unless needed.

Responsible for functions that work part by part (indices, sums, means and maxima over axes, products with values, the
mean over heads), for gradients of weights, and for refusing a matrix above CLEARHEAD_MEMORY. The numbers come from
`clearhead.weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch import dispatch, operator
from clearhead.adapters.torch.host import array_view, lead_of
from clearhead.adapters.torch.lazy import NO_ANSWER, LazyTensor, getter, plain_tensor
from clearhead.adapters.torch.reference import HALF_DTYPES, repeat_shared_heads, weights_formula
from clearhead.adapters.torch.rule_names import rule_named
from clearhead.arrays import Array, Integers
from clearhead.attention_weights.lazy import check_memory
from clearhead.attention_weights.matrix import Weights, weights
from clearhead.errors import InputError
from clearhead.once import cached_property

PART_BYTES = 1 << 22  # bytes of weights built at a time where only reductions are needed
ASK = "use w[..., i, :], w @ v, w.mean(1), w.sum(-2) or w.amax(-1) under torch.no_grad(), or w.weights.summary()"


def weights_of(
    query: torch.Tensor,
    key: torch.Tensor,
    tables: Sequence[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
    lse: torch.Tensor | None = None,
    average: bool = False,
) -> torch.Tensor:
    """The operator's weights, (…, queries, keys), or their mean over heads, as a lazy tensor.

    If the call is traced, compiled or mapped, they are computed immediately.
    """
    sink = sink.float() if sink is not None and sink.dtype in HALF_DTYPES else sink
    operands = query, key, sink, *tables
    if dispatch.needs_operators() or not dispatch.is_plain_memory([x for x in operands if x is not None]):
        computed = weights_formula(query, key, tables, sink, rule_named(rule), scale)
        return (computed.mean(-3) if average else computed).to(query.dtype)
    origin = Origin(query, key, tuple(tables), sink, rule, scale, lse)
    return recorded_weights(origin, None, average and query.dim() > 2, query.dtype)


@dataclass(eq=False)
class Origin:
    """The source of weights: the operator's operands, and the LSE if known."""

    query: torch.Tensor
    key: torch.Tensor
    tables: tuple[torch.Tensor, ...]
    sink: torch.Tensor | None
    rule: str
    scale: float
    lse: torch.Tensor | None

    def __post_init__(self) -> None:
        self.operands = self.query, self.key, self.sink, *self.tables  # operands that may have a gradient
        self.versions = [version(x) for x in self.operands]  # their versions, to detect later writes

    @cached_property
    def lead(self) -> tuple[int, ...]:
        """The leading axes of all weights."""
        lead, key_lead = tuple(self.query.shape[:-2]), self.key.shape[:-2]
        equal = lead[:-1] == key_lead[:-1] and len(lead) == len(key_lead)
        return lead if equal else lead_of(self.query, self.key, self.key)

    @cached_property
    def all_heads(self) -> Integers:
        """The numbers of all heads."""
        return np.arange(int(np.prod(self.lead))).reshape(self.lead)

    @cached_property
    def matrix(self) -> Weights:
        """All weights as `clearhead.Weights`."""
        mask, score = rule_named(self.rule).filled([array_view(x) for x in self.tables])
        sink, lse = (None if x is None else array_view(x) for x in (self.sink, self.lse))
        q, k = array_view(self.query), array_view(self.key)
        return weights(
            q, k, mask=mask, score=score, scale=self.scale, sink=sink, lse=lse, threads=torch.get_num_threads()
        )

    def formula(self, operands: Sequence[Any], heads: Integers, rows: Integers | None = None) -> torch.Tensor:
        """Weights of some heads and rows, from torch operations that autograd can differentiate."""
        query, key, sink, *tables = operands
        at = None if rows is None else torch.from_numpy(rows)
        return weights_formula(query, key, tables, sink, rule_named(self.rule), self.scale, torch.from_numpy(heads), at)

    def check(self) -> None:
        """Raise InputError if an operand was written to since."""
        names = "queries", "keys", "sink", *("mask or bias" for _ in self.tables)
        for name, x, before in zip(names, self.operands, self.versions, strict=True):
            if x is not None and version(x) != before:
                raise InputError(
                    f"the {name} of shape {tuple(x.shape)} were changed in place after these weights were made from "
                    "them: read weights earlier, or change a clone."
                )


def version(x: torch.Tensor | None) -> int:
    """Torch's count of writes to a tensor."""
    return 0 if x is None or x.is_inference() else int(x._version)


@dataclass(frozen=True, eq=False)
class TensorWeights(Weights):
    """Weights of some heads, or their mean over the last leading axis; with gradients from a formula."""

    origin: Origin
    averaged: bool
    differentiable: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., queries, keys)."""
        lead = self.heads.shape[:-1] if self.averaged else self.heads.shape
        return (*lead, self.source.problem.queries, self.source.problem.keys)

    def numbers(self, heads: Integers, rows: Integers, columns: Integers, out: Array | None = None) -> Any:
        """The weights of all combinations of heads, rows and columns."""
        if self.differentiable:
            if out is not None:
                raise InputError("an array cannot receive weights with a gradient: leave out= away, or detach them.")
            check_affordable((*heads.shape, len(rows), self.shape[-1]), self.dtype)
            computed = self.origin.formula(self.origin.operands, np.ascontiguousarray(heads), rows)
            return (computed.mean(-3) if self.averaged else computed)[..., torch.from_numpy(columns)]
        if not self.averaged:
            return super().numbers(heads, rows, columns, out)
        each = [np.array(heads[..., n]) for n in range(heads.shape[-1])]
        total = sum(super(TensorWeights, self).numbers(one, rows, columns) for one in each)
        return np.divide(total, len(each), out=out)


class LazyWeights(LazyTensor):
    """Attention weights, (…, queries, keys), computed on first use.

    For torch they are a tensor of the model's dtype, with gradients, that all functions accept. Indexing, sums, means
    and maxima over axes and `w @ v` do not build the matrix; a function that must build more than CLEARHEAD_MEMORY
    raises InputError. Call them to get a plain tensor; `weights` are the `clearhead.Weights` of all heads, with
    `summary` and `map`. Copies and pickles hold the numbers.

    >>> from clearhead.adapters.torch.sdpa import CAUSAL
    >>> w = weights_of(torch.zeros(2, 1), torch.zeros(2, 1), (), None, CAUSAL, 1.0)
    >>> w, w[1], w.sum(-2)
    (LazyWeights((2, 2)), tensor([0.5000, 0.5000]), tensor([1.5000, 0.5000]))
    """

    origin: Origin
    chosen: Integers | None
    averaged: bool

    @property
    def heads(self) -> Integers:
        """The numbers of the heads."""
        return self.origin.all_heads if self.chosen is None else self.chosen

    @property
    def weights(self) -> Weights:
        """`clearhead.Weights` of all heads, including averaged ones."""
        self.origin.check()
        return Weights(self.origin.matrix.source, self.heads)

    def matrix(self, differentiable: bool = False) -> TensorWeights:
        """The matrix that indices read."""
        self.origin.check()
        return TensorWeights(self.origin.matrix.source, self.heads, self.origin, self.averaged, differentiable)

    def compute(self) -> torch.Tensor:
        """Compute all numbers."""
        matrix = self.matrix()
        check_affordable(matrix.shape, matrix.dtype)
        return torch.from_numpy(np.asarray(matrix)).to(getter("dtype")(self))

    def again(self) -> LazyWeights:
        """The same weights without a gradient."""
        return lazy_weights(self.origin, self.chosen, self.averaged, self.dtype)

    def row(self, i: int) -> torch.Tensor:
        """The weights of query i over all keys: (..., keys)."""
        return self[..., i, :]

    def column(self, j: int) -> torch.Tensor:
        """The weights that key j gets from each query: (..., queries)."""
        return self[..., j]

    def block(self, rows: slice, columns: slice) -> torch.Tensor:
        """A rectangle of weights, (..., rows, columns)."""
        return self[..., rows, columns]

    @property
    def summary(self) -> Any:
        """`Weights.summary` of all heads."""
        return self.weights.summary

    @property
    def map(self) -> Any:
        """`Weights.map` of all heads."""
        return self.weights.map

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return self.weights._repr_mimebundle_(include, exclude)

    def _display_(self) -> Any:
        return self.weights._display_()

    def _repr_html_(self) -> str:
        return self.weights._repr_html_()

    def _repr_png_(self) -> bytes | None:
        return self.weights._repr_png_()


def lazy_weights(origin: Origin, heads: Integers | None, averaged: bool, dtype: torch.dtype) -> LazyWeights:
    """Weights without a gradient: of all heads, or of some by number."""
    lead = origin.lead if heads is None else heads.shape
    shape = (*(lead[:-1] if averaged else lead), origin.query.shape[-2], origin.key.shape[-2])
    weights: LazyWeights = LazyWeights.shaped(shape, dtype)
    weights.origin, weights.chosen, weights.averaged = origin, heads, averaged
    return weights


def recorded_weights(origin: Origin, heads: Integers | None, averaged: bool, dtype: torch.dtype) -> torch.Tensor:
    """Lazy weights, with a gradient if an operand has one."""
    arguments = origin, heads, averaged, dtype
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in origin.operands):
        recorded: torch.Tensor = Recorded.apply(arguments, *origin.operands)
        return recorded
    return lazy_weights(*arguments)


class Recorded(torch.autograd.Function):
    """Lazy weights with gradients for queries, keys, sink and tables."""

    @staticmethod
    def forward(ctx: Any, arguments: Any, *operands: Any) -> torch.Tensor:
        """Return lazy weights, without computing anything."""
        ctx.save_for_backward(*operands)
        ctx.arguments = arguments
        return lazy_weights(*arguments)

    @staticmethod
    def backward(ctx: Any, d: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Differentiate the formula, twice if needed; or return the backward kernel's gradients unchanged."""
        if isinstance(d, LazyGradient) and d.known is None:
            return None, *d.d_operands
        (origin, heads, averaged, _), operands = ctx.arguments, ctx.saved_tensors
        twice = torch.is_grad_enabled()
        if not twice:
            operands = [x if x is None else x.detach().requires_grad_(x.requires_grad) for x in operands]
        with torch.enable_grad():
            weights = origin.formula(operands, origin.all_heads if heads is None else heads)
            weights = (weights.mean(-3) if averaged else weights).to(d.dtype)
            wanted = [n for n, x in enumerate(operands) if x is not None and x.requires_grad]
            leaves = [operands[n] for n in wanted]
            gradients = torch.autograd.grad(weights, leaves, as_plain_tensor(d), create_graph=twice, allow_unused=True)
        by_number = dict(zip(wanted, gradients, strict=True))
        return None, *(by_number.get(n) for n in range(len(operands)))


class LazyGradient(LazyTensor):
    """A loss's gradient by weights, (…, queries, keys), computed on first use."""

    parts: tuple[torch.Tensor, torch.Tensor]
    d_operands: Sequence[torch.Tensor | None]  # gradients of the operands of the weights

    def compute(self) -> torch.Tensor:
        """Compute d_output · vᵀ."""
        check_affordable(self.shape, np.dtype(np.float64 if self.dtype is torch.float64 else np.float32))
        return by_weights(*self.parts)

    def again(self) -> LazyGradient:
        """The same gradient as a new tensor."""
        return lazy_gradient(self.parts, self.d_operands)


def by_weights(d_output: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The gradient by weights."""
    return d_output @ repeat_shared_heads(value, d_output.shape[-3]).mT


def lazy_gradient(parts: tuple[torch.Tensor, torch.Tensor], d_operands: Sequence[torch.Tensor | None]) -> LazyGradient:
    """The gradient by weights as a lazy tensor."""
    d_output, value = parts
    gradient: LazyGradient = LazyGradient.shaped((*d_output.shape[:-1], value.shape[-2]), d_output.dtype)
    gradient.parts, gradient.d_operands = parts, d_operands
    return gradient


def as_plain_tensor(x: torch.Tensor) -> torch.Tensor:
    """A tensor, or a lazy one as a plain tensor."""
    return plain_tensor(x) if isinstance(x, LazyTensor) else x


def check_affordable(shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Raise InputError for an array that needs more than CLEARHEAD_MEMORY."""
    try:
        check_memory(tuple(shape), dtype)
    except InputError as error:
        raise InputError(f"{str(error).partition(': ')[0]}: {ASK}.") from None


def too_large(w: LazyWeights) -> bool:
    """Whether the matrix is too large to build."""
    try:
        check_memory(w.matrix().shape, w.matrix().dtype)
    except InputError:
        return True
    return False


# Functions that do not build the matrix


def answered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function answer, unless autograd records it and the matrix is small enough to build."""

    def answer(w: LazyWeights, *args: Any, **options: Any) -> Any:
        if w.known is not None or (w.recorded and not too_large(w)):
            return NO_ANSWER
        return function(w, *args, **options)

    return answer


def indexed(w: LazyWeights, index: Any) -> Any:
    """Index weights: complete heads give weights, anything else numbers."""
    index = index if isinstance(index, tuple) else (index,)
    if not all(is_simple(entry) for entry in index):
        return NO_ANSWER
    index = tuple(np.asarray(entry) if isinstance(entry, torch.Tensor) else entry for entry in index)
    index = tuple(int(x) if isinstance(x, np.ndarray) and not x.ndim else x for x in index)
    matrix = w.matrix(w.recorded)
    entries = matrix.expanded(index)
    axes = [n for n, entry in enumerate(entries) if entry is not None and entry is not Ellipsis]
    if all(isinstance(entries[n], slice) and entries[n] == slice(None) for n in axes[-2:]):
        if any(entry is None for entry in entries[axes[-2] :]):
            return NO_ANSWER
        heads = np.asarray(w.heads[tuple(entries[: axes[-2]])])
        return (
            recorded_weights(w.origin, heads, w.averaged, w.dtype)
            if w.recorded
            else lazy_weights(w.origin, heads, w.averaged, w.dtype)
        )
    part = matrix[index]
    return (part if w.recorded else torch.from_numpy(np.array(part, order="C"))).to(w.dtype)


def is_simple(entry: Any) -> bool:
    """Whether torch and numpy interpret an index of one axis alike."""
    if isinstance(entry, torch.Tensor):
        integral = entry.dtype in (torch.int64, torch.int32)
        return entry.dim() < 2 and (integral or (entry.dtype is torch.bool and entry.dim() == 1))
    if isinstance(entry, slice):
        return entry.step is None or entry.step > 0
    if isinstance(entry, list):
        return all(is_number(n) for n in entry)
    return entry is None or entry is Ellipsis or is_number(entry)


def is_number(x: Any) -> bool:
    """Whether something is an integer but not a bool."""
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def selected(w: LazyWeights, dim: int, index: int) -> Any:
    """`select`: one index of an axis."""
    return indexed(w, (*[slice(None)] * (dim % w.ndim), index))


def squeezed(w: LazyWeights, dim: int | tuple[int, ...] | None = None) -> Any:
    """`squeeze`: remove axes of size 1."""
    dims = range(w.ndim) if dim is None else [n % w.ndim for n in ((dim,) if isinstance(dim, int) else dim)]
    removed = [n for n in dims if w.shape[n] == 1]
    return indexed(w, tuple(0 if n in removed else slice(None) for n in range(w.ndim)))


def unsqueezed(w: LazyWeights, dim: int) -> Any:
    """`unsqueeze`: add an axis of size 1 before the queries."""
    at = dim % (w.ndim + 1)
    return NO_ANSWER if at > w.ndim - 2 else indexed(w, (*[slice(None)] * at, None))


def unbound(w: LazyWeights, dim: int = 0) -> Any:
    """`unbind`: each index of an axis."""
    return tuple(selected(w, dim, n) for n in range(w.shape[dim]))


def converted(w: LazyWeights, *args: Any, **options: Any) -> Any:
    """`to`: another float dtype."""
    arguments = [*args, *options.values()]
    if len(arguments) != 1 or not isinstance(arguments[0], torch.dtype) or not arguments[0].is_floating_point:
        return NO_ANSWER
    return lazy_weights(w.origin, w.chosen, w.averaged, arguments[0]) if not w.recorded else NO_ANSWER


def detached(w: LazyWeights) -> LazyWeights:
    """`detach`: the same weights without a gradient."""
    return w.again()


def multiplied(w: LazyWeights, v: Any) -> Any:
    """w @ v, a few rows at a time; with gradients through the operator."""
    if not isinstance(v, torch.Tensor) or isinstance(v, LazyTensor) or v.dim() < 2 or v.shape[-2] != w.shape[-1]:
        return NO_ANSWER
    if not w.recorded:
        return torch.cat([part.to(w.dtype) @ v for part in row_parts(w)], -2)
    origin, all_heads = w.origin, w.heads.size == int(np.prod(w.origin.lead)) and not w.averaged
    if not all_heads or v.dtype is not origin.query.dtype:
        return NO_ANSWER
    key = repeat_shared_heads(
        origin.key, w.shape[-3] if w.ndim > 2 else 1
    )  # a key head per query head, since each has separate values
    x = v.expand(*w.shape[:-2], *v.shape[-2:])
    return operator.attend(origin.query, key, x, origin.tables, origin.sink, origin.rule, origin.scale)[0]


def row_parts(w: LazyWeights) -> Iterator[torch.Tensor]:
    """All weights, a few rows at a time, in the computation's dtype."""
    matrix = w.matrix()
    *lead, queries, keys = matrix.shape
    step = max(1, PART_BYTES // max(1, int(np.prod(lead)) * keys * matrix.dtype.itemsize))
    for start in range(0, max(1, queries), step):
        yield torch.from_numpy(matrix.block(slice(start, start + step), slice(None)))


def reduced_over(how: str, w: LazyWeights, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    """A sum, mean or maximum over axes."""
    dim, keepdim = options.pop("axis", dim), options.pop("keepdims", keepdim)
    dtype = options.pop("dtype", None)
    if w.recorded or options or isinstance(dim, torch.Tensor | str):
        return NO_ANSWER
    axes = range(w.ndim) if dim is None or dim == () else (dim,) if isinstance(dim, int) else dim
    dims = tuple(sorted(n % w.ndim for n in axes))
    if how == "mean" and dims == (w.ndim - 3,) and not keepdim and not w.averaged and dtype is None:
        return lazy_weights(w.origin, w.chosen, True, w.dtype)
    check_affordable([1 if n in dims else size for n, size in enumerate(w.shape)], w.matrix().dtype)
    each = [getattr(part, "amax" if how == "amax" else "sum")(dims, keepdim=True) for part in row_parts(w)]
    if w.ndim - 2 in dims:
        joined = torch.cat(each, -2)
        total = joined.amax(-2, keepdim=True) if how == "amax" else joined.sum(-2, keepdim=True)
    else:
        total = torch.cat(each, -2)
    if how == "mean":
        total = total / max(1, int(np.prod([w.shape[n] for n in dims])))
    return (total if keepdim else total.squeeze(dims)).to(dtype or w.dtype)


def maximum(w: LazyWeights, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    """`max`: the maximum along an axis and its index, or over all weights."""
    if dim is None and not options and not keepdim:
        return reduced_over("amax", w)
    if w.recorded or options or not isinstance(dim, int):
        return NO_ANSWER
    dim %= w.ndim
    check_affordable([1 if n == dim else size for n, size in enumerate(w.shape)], w.matrix().dtype)
    values, indices, start = [], [], 0
    for part in row_parts(w):
        value, index = part.max(dim, keepdim=True)
        values.append(value)
        indices.append(index + start * (dim == w.ndim - 2))
        start += part.shape[-2]
    value, index = torch.cat(values, -2), torch.cat(indices, -2)
    if dim == w.ndim - 2:
        value, which = value.max(-2, keepdim=True)
        index = index.gather(-2, which)
    if not keepdim:
        value, index = value.squeeze(dim), index.squeeze(dim)
    return torch.return_types.max((value.to(w.dtype), index))


def as_before(w: LazyWeights, *_: Any, **__: Any) -> LazyWeights:
    """The weights themselves."""
    return w


IN_PARTS: dict[str, Callable[..., Any]] = {
    "__getitem__": indexed, "select": selected, "squeeze": squeezed, "unsqueeze": unsqueezed, "unbind": unbound, "sum":
    partial(reduced_over, "sum"), "mean": partial(reduced_over, "mean"), "amax": partial(reduced_over, "amax"), "max":
    maximum, "matmul": multiplied, "__matmul__": multiplied,
}  # fmt: skip
SAME_WEIGHTS: dict[str, Callable[..., Any]] = {
    "to": converted, "float": lambda w: converted(w, torch.float32), "double": lambda w: converted(w, torch.float64),
    "detach": detached, "contiguous": as_before, "cpu": as_before,
}  # fmt: skip
LazyWeights.answers = {name: answered(function) for name, function in IN_PARTS.items()} | SAME_WEIGHTS
