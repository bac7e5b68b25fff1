"""Traces a function written for torch to a formula, with stand-ins that torch's functions accept.

Responsible for captured tensors: an indexed tensor becomes a load, and the tensor an operand of the call, with a
gradient if it requires one. This includes tensors computed from captured ones. Not for the meaning of torch's functions
(`traced_functions`), nor for simplification and error locations (`rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, handle_torch_function

from clearhead.adapters.torch.lazy import getter
from clearhead.adapters.torch.traced_functions import (
    CONVERSIONS,
    DTYPE_OF_METHOD,
    base_name,
    convert_kind,
    trace_torch_call,
    works_in_place,
)
from clearhead.errors import TraceError
from clearhead.rules.expression import LEAVES, Expression, Formula, Kind, rewrite
from clearhead.rules.masks import check_called
from clearhead.rules.operations import KIND_RANK
from clearhead.rules.simplification import simplify
from clearhead.rules.trace import returned_expression, user_line_of_error
from clearhead.rules.tracers import Traced, as_expression


class TorchStandIn:
    """Base of stand-ins: torch dispatches functions of them to the recorder, as for tensors."""

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any) -> Any:
        raise TraceError(
            f"torch.{function.__name__} takes what differs from pair to pair: write it in arithmetic and torch's "
            "functions of single numbers"
        )


class TorchNumber(TorchStandIn, Traced):
    """A stand-in for a number that torch's functions accept."""

    shared = False  # whether another stand-in refers to the same memory
    device = torch.device("cpu")
    shape = torch.Size(())
    ndim = 0

    @property
    def dtype(self) -> torch.dtype:
        """The dtype; for floats, the scores'."""
        kind: torch.dtype = handle_torch_function(getter("dtype"), (self,), self)
        return kind

    def __getattr__(self, name: str) -> Any:
        """A method of tensors."""
        method = getattr(torch.Tensor, name)
        if name.startswith("__") or not callable(method):
            raise AttributeError(f"a number that differs from pair to pair has no attribute {name}")
        return lambda *args, **options: handle_torch_function(method, (self,), self, *args, **options)

    def __bool__(self) -> bool:
        raise TraceError(
            "a Python `if`, `and`, `or`, `not`, min() or max() needs one truth, but this differs from pair to pair: "
            "use torch.where(condition, a, b), &, |, ~, torch.minimum or torch.maximum"
        )

    def refuse_number(self, *_: Any) -> Any:
        """int(), float(), round()."""
        raise TraceError("int(), float(), round() and math's functions need one number: use torch's functions")

    __int__ = __float__ = __complex__ = refuse_number
    __round__ = __floor__ = __ceil__ = __trunc__ = refuse_number  # type: ignore[assignment]

    def __index__(self) -> int:
        raise TraceError("only a tensor can be indexed by a position, and range() of one is impossible: make a tensor")


def torch_method(name: str) -> Callable[..., Any]:
    """An operator or method that dispatches to torch, so a tensor as its other operand is loaded."""
    method = getattr(torch.Tensor, name)
    return lambda self, *other, **options: handle_torch_function(method, (self,), self, *other, **options)


ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
for name in ARITHMETIC:
    setattr(TorchNumber, f"__{name}__", torch_method(f"__{name}__"))
    setattr(TorchNumber, f"__r{name}__", torch_method(f"__r{name}__"))
    setattr(TorchNumber, f"__i{name}__", torch_method(f"__i{name}__"))
for name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "invert"):
    setattr(TorchNumber, f"__{name}__", torch_method(f"__{name}__"))
for name in ("clip", "round"):  # overrides numpy's methods
    setattr(TorchNumber, name, torch_method(name))


class Recorder(TorchFunctionMode):
    """Records the torch functions applied to stand-ins while active, and collects the tensors they read."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.tables: list[torch.Tensor] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if not any(isinstance(x, TorchStandIn) for x in flattened_values((*args, *options.values()))):
            return function(*args, **options)
        called = function.__name__
        if function is torch.Tensor.__getitem__:
            return IndexedTensor(args[0], (), self)[args[1]]
        if function == getter("dtype"):
            return self.dtype_of(args[0])
        if called.startswith("new_") or (called in CONVERSIONS and isinstance(args[0], torch.Tensor)):
            return function(*map(self.sample, args), **options)
        if called == "detach":
            return self.detached(args[0])
        if function is torch.Tensor.where:  # the method takes self first, the function the condition
            args = (args[1], args[0], *args[2:])
        first, changes = args[0], works_in_place(called, options)
        if isinstance(first, TorchNumber) and self.is_view(called, first, args[1:], options):
            return first
        if called not in CONVERSIONS:
            args = tuple(map(self.loaded, args))
            options = {name: self.loaded(x) for name, x in options.items()}
        result = TorchNumber(trace_torch_call(called, tuple(args), options).expression)
        return self.changed(called, first, result) if changes else result

    def is_view(self, called: str, x: TorchNumber, others: Sequence[Any], options: dict[str, Any]) -> bool:
        """Whether a conversion returns the same tensor because it already has the dtype."""
        if called not in CONVERSIONS or called in ("clone", "item") or options.get("copy"):
            return False
        arguments = [DTYPE_OF_METHOD[called]] if called in DTYPE_OF_METHOD else [*others, *options.values()]
        dtypes = (
            y if isinstance(y, torch.dtype) else y.dtype for y in arguments if isinstance(y, torch.dtype | torch.Tensor)
        )
        return next(dtypes, self.dtype_of(x)) == self.dtype_of(x)

    def changed(self, called: str, x: Any, result: TorchNumber) -> TorchNumber:
        """Replace a stand-in's value, for all its names, as torch's in-place functions do."""
        instead = f"take what {base_name(called)} gives"
        if not isinstance(x, TorchNumber):
            raise TraceError(f"torch.{called} works in place on a captured tensor, and a rule changes none: {instead}")
        if x.shared:
            raise TraceError(f"torch.{called} works in place on a part of a row or a detached number: {instead}")
        own, kind = x.expression.kind, result.expression.kind
        if KIND_RANK[kind] > KIND_RANK[own]:
            raise TraceError(f"torch.{called} cannot make {x!r}, which is {own}, {kind} in place: {instead}")
        x.expression = convert_kind(result, own).expression
        return x

    def dtype_of(self, x: TorchNumber) -> torch.dtype:
        """The dtype; for floats, the scores'."""
        return {"float": self.dtype, "int": torch.int64, "bool": torch.bool}[x.expression.kind]

    def sample(self, x: Any) -> Any:
        """A tensor of a stand-in's dtype; anything else unchanged."""
        return torch.zeros((), dtype=self.dtype_of(x)) if isinstance(x, TorchNumber) else x

    def detached(self, x: TorchNumber) -> TorchNumber:
        """The same number, read from detached tables."""
        if "score" in x.expression.leaves:
            raise TraceError("what is made of a score has its gradient: detach() is for captured tensors alone")

        def change(e: Expression) -> Expression | None:
            return replace(e, array=self.table(self.tables[e.array or 0].detach())) if e.op == "load" else None

        own = TorchNumber(rewrite(x.expression, change))
        own.shared = x.shared = True
        return own

    def loaded(self, x: Any) -> Any:
        """A 0-d tensor as a load or a constant; anything else unchanged."""
        if isinstance(x, IndexedTensor):
            x.refuse()
        if not isinstance(x, torch.Tensor):
            return x
        if x.dim():
            shape = tuple(x.shape)
            raise TraceError(f"a tensor of shape {shape} is no single number: index it by positions, as table[head]")
        return self.load(x.reshape(1), (0,)) if x.requires_grad else x.item()

    def load(self, tensor: torch.Tensor, places: tuple[Any, ...]) -> TorchNumber:
        """A load of one element of a tensor."""
        if tensor.numel() == 0:
            raise TraceError(f"a tensor of shape {tuple(tensor.shape)} is empty: omit it, or give it numbers")
        kind: Kind = "float" if tensor.is_floating_point() else "bool" if tensor.dtype is torch.bool else "int"
        index = tuple(as_expression(x) for x in places)
        wrong = next((e for e in index if e.kind != "int"), None)
        if wrong is not None:
            raise TraceError(f"{wrong!r} is not a whole number: index by head, key, or integers computed from them")
        return TorchNumber(Expression("load", kind, index, array=self.table(tensor)))

    def table(self, tensor: torch.Tensor) -> int:
        """A tensor's index in `tables`, which it joins on first use."""
        number = next((n for n, x in enumerate(self.tables) if x is tensor), len(self.tables))
        if number == len(self.tables):
            self.tables.append(tensor)
        return number


def flattened_values(values: Sequence[Any]) -> Iterator[Any]:
    """The values, with tuples and lists replaced by their items."""
    for x in values:
        yield from x if isinstance(x, tuple | list) else (x,)


class IndexedTensor(TorchStandIn):
    """A captured tensor with its first axes indexed; indexing the last axis gives a number."""

    def __init__(self, tensor: torch.Tensor, places: tuple[Any, ...], recorder: Recorder) -> None:
        self.tensor, self.places, self.recorder = tensor, places, recorder

    @property
    def shape(self) -> torch.Size:
        """The remaining axes."""
        left: torch.Size = self.tensor.shape[len(self.places) :]
        return left

    def __len__(self) -> int:
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Any]:
        return (self[n] for n in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        places = (*self.places, *(index if isinstance(index, tuple) else (index,)))
        if any(isinstance(x, slice | torch.Tensor | IndexedTensor) or x is None or x is Ellipsis for x in places):
            raise TraceError("a captured tensor is indexed by whole numbers and positions alone: slice it outside")
        if len(places) > self.tensor.dim():
            raise TraceError(
                f"a tensor of shape {tuple(self.tensor.shape)} has {self.tensor.dim()} axes, not {len(places)}: give "
                "one index for each"
            )
        for place, size in zip(places, self.tensor.shape, strict=False):
            if isinstance(place, int) and not -size <= place < size:
                raise TraceError(
                    f"a tensor of shape {tuple(self.tensor.shape)} has no index {place} in an axis of size {size}: "
                    f"index it by 0 to {size - 1}"
                )
        if len(places) < self.tensor.dim():
            return IndexedTensor(self.tensor, places, self.recorder)
        number = self.recorder.load(self.tensor, places)
        number.shared = bool(self.places)
        return number

    def refuse(self, *_: Any) -> Any:
        """Raise TraceError: a row was used as a number."""
        raise TraceError(
            f"a row of shape {tuple(self.shape)} is no single number: index all axes of its tensor, and make sums and "
            "products of rows outside, as table = a @ b.T, then table[row, key]"
        )

    __neg__ = __abs__ = __array__ = __matmul__ = __rmatmul__ = refuse

    def __getattr__(self, name: str) -> Any:
        """A method of tensors."""
        return self.refuse() if hasattr(torch.Tensor, name) else object.__getattribute__(self, name)


for name in (*ARITHMETIC, *(f"r{name}" for name in ARITHMETIC), "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(IndexedTensor, f"__{name}__", IndexedTensor.refuse)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def trace_torch_function(
    function: Callable[..., Any], names: Sequence[str], dtype: torch.dtype = torch.float32
) -> Formula:
    """Trace a function with parameters `names`, for scores of `dtype`, to a formula.

    Raises TraceError with the file, line and source of code that cannot be traced.

    >>> slopes = torch.tensor([0.5, 0.25])
    >>> names = ("score", "batch", "head", "row", "key")
    >>> trace_torch_function(lambda score, b, h, q, k: torch.tanh(score) + slopes[h], names).expression
    (tanh(score) + a0[head])
    """
    check_called(function, "the function")
    recorder = Recorder(dtype)
    try:
        with recorder:
            result = function(*(TorchNumber(Expression(name, LEAVES[name])) for name in names))
        return Formula(simplify(returned_expression(recorder.loaded(result))), tuple[Any, ...](recorder.tables))
    except TraceError as error:
        raise TraceError(f"{user_line_of_error(error, function)}: {error}.") from None
    except Exception as error:
        raise TraceError(
            f"{user_line_of_error(error, function)}: {type(error).__name__}: {error}. The function is called as "
            f"function({', '.join(names)}) with stand-ins for numbers: use arithmetic, comparisons, torch's functions "
            "and tensors indexed by positions."
        ) from None
