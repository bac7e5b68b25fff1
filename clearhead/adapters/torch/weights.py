"""Attention weights as tensors: every function of torch takes them, none builds the matrix that need not.

Decides what is answered part by part (indices, sums, means and maxima over axes, products with values, the mean of
heads), how weights get their gradient, and that above CLEARHEAD_MEMORY the matrix is refused. The numbers are those of
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
from clearhead.adapters.torch.host import lead_of, view
from clearhead.adapters.torch.lazy import NOT_HERE, LazyTensor, getter, numbers
from clearhead.adapters.torch.reference import HALF_DTYPES, repeat_shared_heads, weights_formula
from clearhead.adapters.torch.rule_names import rule_named
from clearhead.arrays import Integers
from clearhead.attention_weights.matrix import Weights, check_memory, weights
from clearhead.errors import InputError
from clearhead.once import cached_property

PART = 1 << 22  # bytes of the weights that are built at once where they are only passed through
ASK = (
    "ask for rows by w[..., i, :], for w @ v, for w.mean(1), w.sum(-2) or w.amax(-1) under torch.no_grad(), or for "
    "w.weights.summary()"
)


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
    """The weights that the operator's output is made with, (…, queries, keys), or their mean over heads; lazy.

    Where calls are traced, compiled or mapped, they are built.
    """
    sink = sink.float() if sink is not None and sink.dtype in HALF_DTYPES else sink
    operands = query, key, sink, *tables
    if dispatch.followed() or not dispatch.numeric([x for x in operands if x is not None]):
        found = weights_formula(query, key, tables, sink, rule_named(rule), scale)
        return (found.mean(-3) if average else found).to(query.dtype)
    origin = Origin(query, key, tuple(tables), sink, rule, scale, lse)
    return made(origin, None, average and query.dim() > 2, query.dtype)


@dataclass(eq=False)
class Origin:
    """What weights are computed from: the operator's operands, and the LSE if it is known."""

    query: torch.Tensor
    key: torch.Tensor
    tables: tuple[torch.Tensor, ...]
    sink: torch.Tensor | None
    rule: str
    scale: float
    lse: torch.Tensor | None

    def __post_init__(self) -> None:
        self.operands = self.query, self.key, self.sink, *self.tables  # what may have a gradient
        self.versions = [version(x) for x in self.operands]  # how often each had been written to

    @cached_property
    def lead(self) -> tuple[int, ...]:
        """The leading axes of all weights."""
        own, other = tuple(self.query.shape[:-2]), self.key.shape[:-2]
        alike = own[:-1] == other[:-1] and len(own) == len(other)
        return own if alike else lead_of(self.query, self.key, self.key)

    @cached_property
    def all_heads(self) -> Integers:
        """Their numbers."""
        return np.arange(int(np.prod(self.lead))).reshape(self.lead)

    @cached_property
    def matrix(self) -> Weights:
        """All weights, in numpy."""
        mask, score = rule_named(self.rule).filled([view(x) for x in self.tables])
        sink, lse = (None if x is None else view(x) for x in (self.sink, self.lse))
        q, k = view(self.query), view(self.key)
        return weights(
            q, k, mask=mask, score=score, scale=self.scale, sink=sink, lse=lse, threads=torch.get_num_threads()
        )

    def formula(self, operands: Sequence[Any], heads: Integers, rows: Integers | None = None) -> torch.Tensor:
        """Weights of some heads and rows, as torch differentiates them."""
        query, key, sink, *tables = operands
        at = None if rows is None else torch.from_numpy(rows)
        return weights_formula(query, key, tables, sink, rule_named(self.rule), self.scale, torch.from_numpy(heads), at)

    def check(self) -> None:
        """Nothing may have been written to since."""
        names = "queries", "keys", "sink", *("mask or bias" for _ in self.tables)
        for name, x, before in zip(names, self.operands, self.versions, strict=True):
            if x is not None and version(x) != before:
                raise InputError(
                    f"the {name} of shape {tuple(x.shape)} were changed in place after these weights were made from "
                    "them: look at weights before that, or change a clone."
                )


def version(x: torch.Tensor | None) -> int:
    """How often a tensor was written to, as far as torch counts."""
    return 0 if x is None or x.is_inference() else int(x._version)


@dataclass(frozen=True, eq=False)
class Matrix(Weights):
    """Weights of some heads, or their mean over the last of the leading axes; with gradients from a formula."""

    origin: Origin
    averaged: bool
    differentiable: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., queries, keys)."""
        lead = self.heads.shape[:-1] if self.averaged else self.heads.shape
        return (*lead, self.source.problem.queries, self.source.problem.keys)

    def numbers(self, heads: Integers, rows: Integers, columns: Integers) -> Any:
        """The weights of some heads, rows and columns, each with each."""
        if self.differentiable:
            afford((*heads.shape, len(rows), self.shape[-1]), self.dtype)
            found = self.origin.formula(self.origin.operands, np.ascontiguousarray(heads), rows)
            return (found.mean(-3) if self.averaged else found)[..., torch.from_numpy(columns)]
        if not self.averaged:
            return super().numbers(heads, rows, columns)
        each = [np.array(heads[..., n]) for n in range(heads.shape[-1])]
        total = sum(super(Matrix, self).numbers(one, rows, columns) for one in each)
        return total / len(each)


class LazyWeights(LazyTensor):
    """Attention weights, (…, queries, keys), that are computed when something asks for their numbers.

    To torch they are a tensor of the model's dtype, gradients included: all its functions take them. Heads, indices,
    sums, means and maxima over axes and `w @ v` are answered without building the matrix; what must build more than
    CLEARHEAD_MEMORY raises InputError. Calling them gives a plain tensor, `weights` are `clearhead.Weights` of all
    their heads, with `summary` and `map`. Copies and pickles hold the numbers.

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
        """`clearhead.Weights` of all heads, those that were averaged too."""
        self.origin.check()
        return Weights(self.origin.matrix.source, self.heads)

    def matrix(self, differentiable: bool = False) -> Matrix:
        """What answers indices."""
        self.origin.check()
        return Matrix(self.origin.matrix.source, self.heads, self.origin, self.averaged, differentiable)

    def compute(self) -> torch.Tensor:
        """All numbers."""
        matrix = self.matrix()
        afford(matrix.shape, matrix.dtype)
        return torch.from_numpy(np.asarray(matrix)).to(getter("dtype")(self))

    def again(self) -> LazyWeights:
        """The same without a gradient."""
        return lazy(self.origin, self.chosen, self.averaged, self.dtype)

    def row(self, i: int) -> torch.Tensor:
        """What query i gives each key: (..., keys)."""
        return self[..., i, :]

    def column(self, j: int) -> torch.Tensor:
        """What each query gives key j: (..., queries)."""
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

    def _repr_html_(self) -> str:
        return self.weights._repr_html_()

    def _repr_png_(self) -> bytes | None:
        return self.weights._repr_png_()


def lazy(origin: Origin, heads: Integers | None, averaged: bool, dtype: torch.dtype) -> LazyWeights:
    """Weights without a gradient: of all heads, or of some by number."""
    lead = origin.lead if heads is None else heads.shape
    shape = (*(lead[:-1] if averaged else lead), origin.query.shape[-2], origin.key.shape[-2])
    found: LazyWeights = LazyWeights.shaped(shape, dtype)
    found.origin, found.chosen, found.averaged = origin, heads, averaged
    return found


def made(origin: Origin, heads: Integers | None, averaged: bool, dtype: torch.dtype) -> torch.Tensor:
    """The same, with a gradient if an operand has one."""
    asked = origin, heads, averaged, dtype
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in origin.operands):
        found: torch.Tensor = Recorded.apply(asked, *origin.operands)
        return found
    return lazy(*asked)


class Recorded(torch.autograd.Function):
    """Weights whose gradient reaches queries, keys, sink and tables."""

    @staticmethod
    def forward(ctx: Any, asked: Any, *operands: Any) -> torch.Tensor:
        """Nothing is computed yet."""
        ctx.save_for_backward(*operands)
        ctx.asked = asked
        return lazy(*asked)

    @staticmethod
    def backward(ctx: Any, d: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """By the formula; again differentiable where that is wanted. What the kernel found is taken as it is."""
        if isinstance(d, LazyGradient) and d.known is None:
            return None, *d.found
        (origin, heads, averaged, _), operands = ctx.asked, ctx.saved_tensors
        twice = torch.is_grad_enabled()
        if not twice:
            operands = [x if x is None else x.detach().requires_grad_(x.requires_grad) for x in operands]
        with torch.enable_grad():
            found = origin.formula(operands, origin.all_heads if heads is None else heads)
            found = (found.mean(-3) if averaged else found).to(d.dtype)
            wanted = [n for n, x in enumerate(operands) if x is not None and x.requires_grad]
            own = [operands[n] for n in wanted]
            gradients = torch.autograd.grad(found, own, numbers_of(d), create_graph=twice, allow_unused=True)
        by_number = dict(zip(wanted, gradients, strict=True))
        return None, *(by_number.get(n) for n in range(len(operands)))


class LazyGradient(LazyTensor):
    """A loss's gradient by weights, (…, queries, keys), built where it is read."""

    parts: tuple[torch.Tensor, torch.Tensor]
    found: Sequence[torch.Tensor | None]  # gradients of what the weights are made of

    def compute(self) -> torch.Tensor:
        """d_output · vᵀ."""
        afford(self.shape, np.dtype(np.float64 if self.dtype is torch.float64 else np.float32))
        return by_weights(*self.parts)

    def again(self) -> LazyGradient:
        """The same."""
        return lazy_gradient(self.parts, self.found)


def by_weights(d_output: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The gradient by weights."""
    return d_output @ repeat_shared_heads(value, d_output.shape[-3]).mT


def lazy_gradient(parts: tuple[torch.Tensor, torch.Tensor], found: Sequence[torch.Tensor | None]) -> LazyGradient:
    """The same, not computed yet."""
    d_output, value = parts
    gradient: LazyGradient = LazyGradient.shaped((*d_output.shape[:-1], value.shape[-2]), d_output.dtype)
    gradient.parts, gradient.found = parts, found
    return gradient


def numbers_of(x: torch.Tensor) -> torch.Tensor:
    """A plain tensor."""
    return numbers(x) if isinstance(x, LazyTensor) else x


def afford(shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Refuse to build what takes more memory than CLEARHEAD_MEMORY allows."""
    try:
        check_memory(tuple(shape), dtype)
    except InputError as error:
        raise InputError(f"{str(error).partition(': ')[0]}: {ASK}.") from None


def large(w: LazyWeights) -> bool:
    """Whether the matrix may not be built."""
    try:
        check_memory(w.matrix().shape, w.matrix().dtype)
    except InputError:
        return True
    return False


# What need not build the matrix


def answered(function: Callable[..., Any]) -> Callable[..., Any]:
    """An answer where autograd writes nothing down, and where it does but the matrix is too large to be built."""

    def answer(w: LazyWeights, *args: Any, **options: Any) -> Any:
        if w.known is not None or (w.recorded and not large(w)):
            return NOT_HERE
        return function(w, *args, **options)

    return answer


def item(w: LazyWeights, index: Any) -> Any:
    """Heads as weights, anything else as numbers."""
    index = index if isinstance(index, tuple) else (index,)
    if not all(is_simple(entry) for entry in index):
        return NOT_HERE
    index = tuple(np.asarray(entry) if isinstance(entry, torch.Tensor) else entry for entry in index)
    index = tuple(int(x) if isinstance(x, np.ndarray) and not x.ndim else x for x in index)
    matrix = w.matrix(w.recorded)
    entries = matrix.expanded(index)
    own = [n for n, entry in enumerate(entries) if entry is not None and entry is not Ellipsis]
    if all(isinstance(entries[n], slice) and entries[n] == slice(None) for n in own[-2:]):
        if any(entry is None for entry in entries[own[-2] :]):
            return NOT_HERE
        heads = np.asarray(w.heads[tuple(entries[: own[-2]])])
        return made(w.origin, heads, w.averaged, w.dtype) if w.recorded else lazy(w.origin, heads, w.averaged, w.dtype)
    found = matrix[index]
    return (found if w.recorded else torch.from_numpy(np.array(found, order="C"))).to(w.dtype)


def is_simple(entry: Any) -> bool:
    """Whether torch and numpy mean the same by an index of one axis."""
    if isinstance(entry, torch.Tensor):
        whole = entry.dtype in (torch.int64, torch.int32)
        return entry.dim() < 2 and (whole or (entry.dtype is torch.bool and entry.dim() == 1))
    if isinstance(entry, slice):
        return entry.step is None or entry.step > 0
    if isinstance(entry, list):
        return all(is_number(n) for n in entry)
    return entry is None or entry is Ellipsis or is_number(entry)


def is_number(x: Any) -> bool:
    """Whether something is a whole number, not a truth."""
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def selected(w: LazyWeights, dim: int, index: int) -> Any:
    """One place of an axis."""
    return item(w, (*[slice(None)] * (dim % w.ndim), index))


def squeezed(w: LazyWeights, dim: int | tuple[int, ...] | None = None) -> Any:
    """Without axes of one."""
    dims = range(w.ndim) if dim is None else [n % w.ndim for n in ((dim,) if isinstance(dim, int) else dim)]
    gone = [n for n in dims if w.shape[n] == 1]
    return item(w, tuple(0 if n in gone else slice(None) for n in range(w.ndim)))


def unsqueezed(w: LazyWeights, dim: int) -> Any:
    """With an axis of one before the queries."""
    at = dim % (w.ndim + 1)
    return NOT_HERE if at > w.ndim - 2 else item(w, (*[slice(None)] * at, None))


def unbound(w: LazyWeights, dim: int = 0) -> Any:
    """Each place of an axis."""
    return tuple(selected(w, dim, n) for n in range(w.shape[dim]))


def converted(w: LazyWeights, *args: Any, **options: Any) -> Any:
    """In another dtype."""
    given = [*args, *options.values()]
    if len(given) != 1 or not isinstance(given[0], torch.dtype) or not given[0].is_floating_point:
        return NOT_HERE
    return lazy(w.origin, w.chosen, w.averaged, given[0]) if not w.recorded else NOT_HERE


def detached(w: LazyWeights) -> LazyWeights:
    """Without a gradient."""
    return w.again()


def multiplied(w: LazyWeights, v: Any) -> Any:
    """w @ v, some rows after the other; with gradients by the operator."""
    if not isinstance(v, torch.Tensor) or isinstance(v, LazyTensor) or v.dim() < 2 or v.shape[-2] != w.shape[-1]:
        return NOT_HERE
    if not w.recorded:
        return torch.cat([part.to(w.dtype) @ v for part in parts(w)], -2)
    origin, whole = w.origin, w.heads.size == int(np.prod(w.origin.lead)) and not w.averaged
    if not whole or v.dtype is not origin.query.dtype:
        return NOT_HERE
    key = repeat_shared_heads(origin.key, w.shape[-3] if w.ndim > 2 else 1)  # each of whose heads has values of its own
    x = v.expand(*w.shape[:-2], *v.shape[-2:])
    return operator.attend(origin.query, key, x, origin.tables, origin.sink, origin.rule, origin.scale)[0]


def parts(w: LazyWeights) -> Iterator[torch.Tensor]:
    """All weights, some rows after the other, in the computation's dtype."""
    matrix = w.matrix()
    *lead, queries, keys = matrix.shape
    step = max(1, PART // max(1, int(np.prod(lead)) * keys * matrix.dtype.itemsize))
    for start in range(0, max(1, queries), step):
        yield torch.from_numpy(matrix.block(slice(start, start + step), slice(None)))


def folded(how: str, w: LazyWeights, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    """A sum, a mean or the largest over axes."""
    dim, keepdim = options.pop("axis", dim), options.pop("keepdims", keepdim)
    dtype = options.pop("dtype", None)
    if w.recorded or options or isinstance(dim, torch.Tensor | str):
        return NOT_HERE
    named = range(w.ndim) if dim is None or dim == () else (dim,) if isinstance(dim, int) else dim
    dims = tuple(sorted(n % w.ndim for n in named))
    if how == "mean" and dims == (w.ndim - 3,) and not keepdim and not w.averaged and dtype is None:
        return lazy(w.origin, w.chosen, True, w.dtype)
    afford([1 if n in dims else size for n, size in enumerate(w.shape)], w.matrix().dtype)
    each = [getattr(part, "amax" if how == "amax" else "sum")(dims, keepdim=True) for part in parts(w)]
    if w.ndim - 2 in dims:
        joined = torch.cat(each, -2)
        total = joined.amax(-2, keepdim=True) if how == "amax" else joined.sum(-2, keepdim=True)
    else:
        total = torch.cat(each, -2)
    if how == "mean":
        total = total / max(1, int(np.prod([w.shape[n] for n in dims])))
    found = total if keepdim else total.squeeze(dims)
    return found.to(dtype or w.dtype)


def largest(w: LazyWeights, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    """The largest of an axis and where it is; or of all."""
    if dim is None and not options and not keepdim:
        return folded("amax", w)
    if w.recorded or options or not isinstance(dim, int):
        return NOT_HERE
    dim %= w.ndim
    afford([1 if n == dim else size for n, size in enumerate(w.shape)], w.matrix().dtype)
    values, places, start = [], [], 0
    for part in parts(w):
        value, place = part.max(dim, keepdim=True)
        values.append(value)
        places.append(place + start * (dim == w.ndim - 2))
        start += part.shape[-2]
    value, place = torch.cat(values, -2), torch.cat(places, -2)
    if dim == w.ndim - 2:
        value, which = value.max(-2, keepdim=True)
        place = place.gather(-2, which)
    if not keepdim:
        value, place = value.squeeze(dim), place.squeeze(dim)
    return torch.return_types.max((value.to(w.dtype), place))


def as_before(w: LazyWeights, *_: Any, **__: Any) -> LazyWeights:
    """The same."""
    return w


IN_PARTS: dict[str, Callable[..., Any]] = {
    "__getitem__": item, "select": selected, "squeeze": squeezed, "unsqueeze": unsqueezed, "unbind": unbound,
    "sum": partial(folded, "sum"), "mean": partial(folded, "mean"), "amax": partial(folded, "amax"), "max": largest,
    "matmul": multiplied, "__matmul__": multiplied,
}  # fmt: skip
ALIKE: dict[str, Callable[..., Any]] = {
    "to": converted, "float": lambda w: converted(w, torch.float32), "double": lambda w: converted(w, torch.float64),
    "detach": detached, "contiguous": as_before, "cpu": as_before,
}  # fmt: skip
LazyWeights.answers = {name: answered(function) for name, function in IN_PARTS.items()} | ALIKE
