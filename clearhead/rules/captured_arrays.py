"""Stand-ins for the arrays that a rule captures: indexing one becomes a load in the formula.

Decides which elements are read anew in each call, and so have a gradient: elements indexed by positions, and floats
at a fixed index. Whole-array operations are computed once, while the rule is traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from clearhead.errors import TraceError
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula, Kind, immutable_copy, parts
from clearhead.rules.tracers import ADVICE, KIND_OF_DTYPE, Traced, as_expression

METADATA = ("shape", "ndim", "size", "dtype", "itemsize", "nbytes", "T")  # independent of its numbers


class Arrays(list[Any]):
    """The arrays that a formula reads, in load order; tracing used the numbers of those in `looked_at`."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at: list[Any] = []

    def look(self, array: Any) -> Any:
        """Return the array, and record that tracing used its numbers."""
        self.looked_at.append(array)
        return array


class Captured(np.lib.mixins.NDArrayOperatorsMixin):
    """A captured array: indexing by stand-ins gives a load; anything else acts on the array and captures the result."""

    def __init__(self, array: Any, arrays: Arrays) -> None:
        self.array, self.arrays = array, arrays

    def __repr__(self) -> str:
        return f"an array of shape {self.array.shape}"

    def like(self, result: Any) -> Any:
        """Wrap a result that is an array; a copy becomes immutable."""
        if not isinstance(result, np.ndarray):
            return result
        part = result is self.array or np.may_share_memory(result, self.array)
        as_is = part or result.dtype.hasobject or type(result) is not np.ndarray
        return Captured(result if as_is else immutable_copy(result), self.arrays)

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(x, Traced) for x in parts):
            return Traced(self.load(parts))
        plain = tuple(self.arrays.look(x.array) if isinstance(x, Captured) else x for x in parts)
        element = self.array[plain]
        if self.kind == "float" and self.readable and all(map(is_fixed_index, plain)) and len(plain) == self.array.ndim:
            return CapturedNumber(self.load(plain), self.arrays)
        if not isinstance(element, np.ndarray) or element.base is None:  # a number, or a copy
            self.arrays.look(self.array)
        return self.like(element)

    @property
    def kind(self) -> Kind | None:
        """The expression kind of its elements, or None."""
        dtype = self.array.dtype
        return "float" if dtype.name == "bfloat16" else KIND_OF_DTYPE.get(dtype.kind)

    @property
    def readable(self) -> bool:
        """Whether a kernel can read the array's memory."""
        dtype = self.array.dtype
        return dtype.isnative and dtype.itemsize <= 8 and not isinstance(self.array, np.ma.MaskedArray)

    def load(self, parts: tuple[Any, ...]) -> Expression:
        """A load of one element, per pair or the same for all pairs."""
        shape, dtype, kind = self.array.shape, self.array.dtype, self.kind
        if len(parts) != len(shape) or any(
            x is None or x is Ellipsis or (not isinstance(x, Traced) and isinstance(x, slice)) for x in parts
        ):
            raise TraceError(f"an array of shape {shape} needs {len(shape)} positions between its brackets")
        if 0 in shape:
            raise TraceError(f"an array of shape {shape} is empty: nothing can be read from it")
        if kind is None or not self.readable:
            called = f"a {type(self.array).__name__}" if kind else "an array"
            raise TraceError(f"{called} of dtype {dtype} cannot be read: convert it to a plain array of float32")
        places = [as_expression(x) for x in parts]
        wrong = next((p for p in places if p.kind != "int"), None)
        if wrong is not None:
            raise TraceError(f"{wrong!r} is not a whole number and cannot be an index: convert it, as by .astype(int)")
        number = next((n for n, a in enumerate(self.arrays) if a is self.array), len(self.arrays))
        if number == len(self.arrays):
            self.arrays.append(self.array)
        return Expression("load", kind, tuple(places), array=number)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TraceError(ADVICE["store"])

    def __getattr__(self, name: str) -> Any:
        return self.like(getattr(self.array if name in METADATA else self.arrays.look(self.array), name))

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, *args: Any, **options: Any) -> Any:
        return np.asarray(self.arrays.look(self.array), *args)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            raise TraceError(ADVICE["store"])
        if any(isinstance(x, Traced) and not x.known for x in inputs):
            return NotImplemented  # the stand-in traces it
        plain = (x.arrays.look(x.array) if isinstance(x, Captured) else plain_number(x) for x in inputs)
        return self.like(getattr(ufunc, method)(*plain, **options))


def is_fixed_index(x: Any) -> bool:
    """Whether an index is a plain integer."""
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


class CapturedNumber(Traced):
    """A captured float that is the same for all pairs: traced where possible, else used as a plain number."""

    known = True

    def __init__(self, expression: Expression, arrays: Arrays) -> None:
        super().__init__(expression)
        self.arrays = arrays

    def like(self, expression: Expression) -> Traced:
        """A number computed only from captured numbers."""
        return CapturedNumber(expression, self.arrays)

    @property
    def number(self) -> Any:
        """Its current value, while the rule is traced."""
        for part in parts(self.expression):
            if part.op == "load":
                self.arrays.look(self.arrays[part.array or 0])
        return evaluate(Formula(self.expression, tuple(self.arrays)), {})[()]

    def __bool__(self) -> bool:
        return bool(self.number)

    def __int__(self) -> int:
        return int(self.number)

    def __float__(self) -> float:
        return float(self.number)

    def __complex__(self) -> complex:
        return complex(self.number)

    def __round__(self, *digits: Any) -> Any:
        return round(self.number, *digits)

    def __array__(self, *_: Any, **__: Any) -> Any:
        return np.asarray(self.number)

    def __floor__(self) -> Any:
        return math.floor(self.number)

    def __ceil__(self) -> Any:
        return math.ceil(self.number)

    def __trunc__(self) -> Any:
        return math.trunc(self.number)

    def astype(self, dtype: Any) -> Any:
        """Convert the current value, as numpy does."""
        return self.number.astype(dtype)

    def __getitem__(self, index: Any) -> Any:
        """Index it like a 0-d array."""
        return self if index is Ellipsis or index == () else self.number[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # numpy and copy ask for protocols
            raise AttributeError(name)
        return getattr(self.number, name)


def plain_number(x: Any) -> Any:
    """The value of a captured number; anything else unchanged."""
    return x.number if isinstance(x, CapturedNumber) else x


def traced_or_computed(name: str, do: Callable[..., Any]) -> Callable[..., Any]:
    """A method that traces the operation, or computes it now on plain numbers if kernels cannot."""
    write = getattr(Traced, name)

    def method(self: CapturedNumber, *others: Any, **options: Any) -> Any:
        try:
            return write(self, *others, **options)
        except TraceError:
            if any(isinstance(x, Traced) and not x.known for x in others):
                raise
            return do(self, *others, **options)

    return method


def plain_operator(name: str) -> Callable[..., Any]:
    """A Python operator that acts on plain numbers."""
    return lambda self, *others: getattr(self.number, name)(*map(plain_number, others))


for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    for method in (f"__{name}__", f"__r{name}__"):
        setattr(CapturedNumber, method, traced_or_computed(method, plain_operator(method)))
for name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(CapturedNumber, f"__{name}__", traced_or_computed(f"__{name}__", plain_operator(f"__{name}__")))
CapturedNumber.__array_ufunc__ = traced_or_computed(  # type: ignore[method-assign]
    "__array_ufunc__",
    lambda _, ufunc, how, *inputs, **options: getattr(ufunc, how)(*map(plain_number, inputs), **options),
)
CapturedNumber.__array_function__ = traced_or_computed(  # type: ignore[method-assign]
    "__array_function__",
    lambda _, function, types, args, options: function(*map(plain_number, args), **options),
)
