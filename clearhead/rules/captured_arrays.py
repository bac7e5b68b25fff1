"""Stand-ins for what a rule captures: arrays that become loads where they are indexed, and single numbers of them.

Decides what of an array is read anew in each call, and so has a gradient: elements at positions, and floats at places
that are the same for all pairs. What is made of whole arrays is calculated once, while the rule is traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from clearhead.errors import TraceError
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula, Kind, parts, unchanging
from clearhead.rules.tracers import INSTEAD, KINDS, Traced, as_expression

SHAPE = ("shape", "ndim", "size", "dtype", "itemsize", "nbytes", "T")  # what an array's numbers have no part in


class Arrays(list[Any]):
    """The arrays that a formula reads, by number; those `looked_at` decided it while it was traced."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at: list[Any] = []

    def look(self, array: Any) -> Any:
        """The array itself, for its numbers to be used now."""
        self.looked_at.append(array)
        return array


class Captured(np.lib.mixins.NDArrayOperatorsMixin):
    """A captured array: indexed by stand-ins it becomes a load, else it is the array, and what is made of it is too."""

    def __init__(self, array: Any, arrays: Arrays) -> None:
        self.array, self.arrays = array, arrays

    def __repr__(self) -> str:
        return f"an array of shape {self.array.shape}"

    def like(self, result: Any) -> Any:
        """Parts and elementwise functions of captured arrays are captured arrays; copies cannot change."""
        if not isinstance(result, np.ndarray):
            return result
        part = result is self.array or np.may_share_memory(result, self.array)
        plain = part or result.dtype.hasobject or type(result) is not np.ndarray
        return Captured(result if plain else unchanging(result), self.arrays)

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(x, Traced) for x in parts):
            return Traced(self.load(parts))
        plain = tuple(self.arrays.look(x.array) if isinstance(x, Captured) else x for x in parts)
        found = self.array[plain]
        if self.kind == "float" and self.readable and all(map(is_place, plain)) and len(plain) == self.array.ndim:
            return Read(self.load(plain), self.arrays)
        if not isinstance(found, np.ndarray) or found.base is None:  # numbers, or a copy of some
            self.arrays.look(self.array)
        return self.like(found)

    @property
    def kind(self) -> Kind | None:
        """What its numbers are to an expression."""
        dtype = self.array.dtype
        return "float" if dtype.name == "bfloat16" else KINDS.get(dtype.kind)

    @property
    def readable(self) -> bool:
        """Whether a kernel can read it."""
        dtype = self.array.dtype
        return dtype.isnative and dtype.itemsize <= 8 and not isinstance(self.array, np.ma.MaskedArray)

    def load(self, parts: tuple[Any, ...]) -> Expression:
        """One element, for each pair or for all."""
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
            raise TraceError(f"{wrong!r} is no whole number and cannot be an index")
        number = next((n for n, a in enumerate(self.arrays) if a is self.array), len(self.arrays))
        if number == len(self.arrays):
            self.arrays.append(self.array)
        return Expression("load", kind, tuple(places), array=number)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TraceError(INSTEAD["store"])

    def __getattr__(self, name: str) -> Any:
        return self.like(getattr(self.array if name in SHAPE else self.arrays.look(self.array), name))

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, *args: Any, **options: Any) -> Any:
        return np.asarray(self.arrays.look(self.array), *args)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            raise TraceError(INSTEAD["store"])
        if any(isinstance(x, Traced) and not x.known for x in inputs):
            return NotImplemented  # stand-ins write it down
        plain = (x.arrays.look(x.array) if isinstance(x, Captured) else number(x) for x in inputs)
        return self.like(getattr(ufunc, method)(*plain, **options))


def is_place(x: Any) -> bool:
    """Whether an index is one whole number."""
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


class Read(Traced):
    """A number read at one place for all pairs, and what is made of such: written down, or itself where it must be."""

    known = True

    def __init__(self, expression: Expression, arrays: Arrays) -> None:
        super().__init__(expression)
        self.arrays = arrays

    def like(self, expression: Expression) -> Traced:
        """What is made of it alone."""
        return Read(expression, self.arrays)

    @property
    def number(self) -> Any:
        """Its value while the rule is traced."""
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
        """As numpy does."""
        return self.number.astype(dtype)

    def __getitem__(self, index: Any) -> Any:
        """As a 0-d array's only element."""
        return self if index is Ellipsis or index == () else self.number[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # numpy and copy ask for protocols
            raise AttributeError(name)
        return getattr(self.number, name)


def number(x: Any) -> Any:
    """The value of what was read, anything else as it is."""
    return x.number if isinstance(x, Read) else x


def written_or_done(name: str, do: Callable[..., Any]) -> Callable[..., Any]:
    """A method that writes down what it can; what no kernel can do is done at once, as if the number were plain."""
    write = getattr(Traced, name)

    def method(self: Read, *others: Any, **options: Any) -> Any:
        try:
            return write(self, *others, **options)
        except TraceError:
            if any(isinstance(x, Traced) and not x.known for x in others):
                raise
            return do(self, *others, **options)

    return method


def operator_on(name: str) -> Callable[..., Any]:
    """A Python operator on plain numbers."""
    return lambda self, *others: getattr(self.number, name)(*map(number, others))


for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    for method in (f"__{name}__", f"__r{name}__"):
        setattr(Read, method, written_or_done(method, operator_on(method)))
for name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Read, f"__{name}__", written_or_done(f"__{name}__", operator_on(f"__{name}__")))
Read.__array_ufunc__ = written_or_done(  # type: ignore[method-assign]
    "__array_ufunc__",
    lambda _, ufunc, how, *inputs, **options: getattr(ufunc, how)(*map(number, inputs), **options),
)
Read.__array_function__ = written_or_done(  # type: ignore[method-assign]
    "__array_function__",
    lambda _, function, types, args, options: function(*map(number, args), **options),
)
