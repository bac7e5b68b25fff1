"""From a function written for torch to an expression: stand-ins that torch's functions know, and captured tensors.

Decides that an indexed tensor becomes a load. A tensor that the function captures, or makes of captured ones, is an
operand of the call afterwards, with a gradient if it wants one. What torch's functions mean is `traced_functions`'s;
everything else, errors included, is `rules.trace`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, handle_torch_function

from clearhead.adapters.torch.lazy import getter
from clearhead.adapters.torch.traced_functions import CONVERSIONS, OWN_DTYPES, converted, in_place, name_of, written
from clearhead.errors import TraceError
from clearhead.rules.expression import LEAVES, Expression, Formula, Kind, rewrite
from clearhead.rules.operations import WIDTH
from clearhead.rules.simplification import simplify
from clearhead.rules.trace import returned, where_in
from clearhead.rules.tracers import Traced, as_expression


class Known:
    """What torch's functions take for a tensor, so that the recorder sees it."""

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any) -> Any:
        raise TraceError(
            f"torch.{function.__name__} takes what differs from pair to pair: write it in arithmetic and torch's "
            "functions of single numbers"
        )


class Number(Known, Traced):
    """A stand-in that torch's functions know."""

    shared = False  # whether another number, or a row, stands for the same memory
    device = torch.device("cpu")
    shape = torch.Size(())
    ndim = 0

    @property
    def dtype(self) -> torch.dtype:
        """Scores' own dtype for floats."""
        kind: torch.dtype = handle_torch_function(getter("dtype"), (self,), self)
        return kind

    def __getattr__(self, name: str) -> Any:
        """A tensor's methods."""
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


def by_torch(name: str) -> Callable[..., Any]:
    """An operator or a method as torch's, so that it means the same and a tensor on its other side is loaded."""
    method = getattr(torch.Tensor, name)
    return lambda self, *other, **options: handle_torch_function(method, (self,), self, *other, **options)


ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
for name in ARITHMETIC:
    setattr(Number, f"__{name}__", by_torch(f"__{name}__"))
    setattr(Number, f"__r{name}__", by_torch(f"__r{name}__"))
    setattr(Number, f"__i{name}__", by_torch(f"__i{name}__"))
for name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "invert"):
    setattr(Number, f"__{name}__", by_torch(f"__{name}__"))
for name in ("clip", "round"):  # which numpy's numbers have too
    setattr(Number, name, by_torch(name))


class Recorder(TorchFunctionMode):
    """While it is in force, what torch's functions do to stand-ins is written down, and tensors they meet are read."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.tables: list[torch.Tensor] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if not any(isinstance(x, Known) for x in inside((*args, *options.values()))):
            return function(*args, **options)
        called = function.__name__
        if function is torch.Tensor.__getitem__:
            return Part(args[0], (), self)[args[1]]
        if function == getter("dtype"):
            return self.dtype_of(args[0])
        if called.startswith("new_") or (called in CONVERSIONS and isinstance(args[0], torch.Tensor)):
            return function(*map(self.sample, args), **options)
        if called == "detach":
            return self.detached(args[0])
        if function is torch.Tensor.where:  # self where the condition holds, which the function takes first
            args = (args[1], args[0], *args[2:])
        first, changes = args[0], in_place(called, options)
        if isinstance(first, Number) and self.is_view(called, first, args[1:], options):
            return first
        if called not in CONVERSIONS:
            args = tuple(map(self.loaded, args))
            options = {name: self.loaded(x) for name, x in options.items()}
        result = Number(written(called, tuple(args), options).expression)
        return self.changed(called, first, result) if changes else result

    def is_view(self, called: str, x: Number, others: Sequence[Any], options: dict[str, Any]) -> bool:
        """Whether torch gives back the very tensor that a conversion is asked of: it has that dtype already."""
        if called not in CONVERSIONS or called in ("clone", "item") or options.get("copy"):
            return False
        given = [OWN_DTYPES[called]] if called in OWN_DTYPES else [*others, *options.values()]
        asked = (
            y if isinstance(y, torch.dtype) else y.dtype for y in given if isinstance(y, torch.dtype | torch.Tensor)
        )
        return next(asked, self.dtype_of(x)) == self.dtype_of(x)

    def changed(self, called: str, x: Any, result: Number) -> Number:
        """A number that has become another under all its names, as torch's in-place functions change it."""
        instead = f"take what {name_of(called)} gives"
        if not isinstance(x, Number):
            raise TraceError(f"torch.{called} works in place on a captured tensor, and a rule changes none: {instead}")
        if x.shared:
            raise TraceError(f"torch.{called} works in place on a part of a row or a detached number: {instead}")
        own, kind = x.expression.kind, result.expression.kind
        if WIDTH[kind] > WIDTH[own]:
            raise TraceError(f"torch.{called} cannot make {x!r}, which is {own}, {kind} in place: {instead}")
        x.expression = converted(result, own).expression
        return x

    def dtype_of(self, x: Number) -> torch.dtype:
        """Scores' own dtype for floats."""
        return {"float": self.dtype, "int": torch.int64, "bool": torch.bool}[x.expression.kind]

    def sample(self, x: Any) -> Any:
        """A tensor in a stand-in's place, where only its dtype is asked for."""
        return torch.zeros((), dtype=self.dtype_of(x)) if isinstance(x, Number) else x

    def detached(self, x: Number) -> Number:
        """The same without gradients: read from tables that have none."""
        if "score" in x.expression.leaves:
            raise TraceError("what is made of a score has its gradient: detach() is for captured tensors alone")

        def change(e: Expression) -> Expression | None:
            return replace(e, array=self.table(self.tables[e.array or 0].detach())) if e.op == "load" else None

        own = Number(rewrite(x.expression, change))
        own.shared = x.shared = True
        return own

    def loaded(self, x: Any) -> Any:
        """A tensor of one number as a load of it; anything else as it is."""
        if isinstance(x, Part):
            x.refuse()
        if not isinstance(x, torch.Tensor):
            return x
        if x.dim():
            shape = tuple(x.shape)
            raise TraceError(f"a tensor of shape {shape} is no single number: index it by positions, as table[head]")
        return self.load(x.reshape(1), (0,)) if x.requires_grad else x.item()

    def load(self, tensor: torch.Tensor, places: tuple[Any, ...]) -> Number:
        """One element for each pair."""
        if tensor.numel() == 0:
            raise TraceError(f"a tensor of shape {tuple(tensor.shape)} is empty: leave it out, or give it numbers")
        kind: Kind = "float" if tensor.is_floating_point() else "bool" if tensor.dtype is torch.bool else "int"
        index = tuple(as_expression(x) for x in places)
        wrong = next((e for e in index if e.kind != "int"), None)
        if wrong is not None:
            raise TraceError(
                f"{wrong!r} is no whole number: index by head, key, or what // and arithmetic make of them"
            )
        return Number(Expression("load", kind, index, array=self.table(tensor)))

    def table(self, tensor: torch.Tensor) -> int:
        """A tensor's number among those that are read."""
        number = next((n for n, x in enumerate(self.tables) if x is tensor), len(self.tables))
        if number == len(self.tables):
            self.tables.append(tensor)
        return number


def inside(values: Sequence[Any]) -> Iterator[Any]:
    """Values, those of tuples and lists one by one."""
    for x in values:
        yield from x if isinstance(x, tuple | list) else (x,)


class Part(Known):
    """A captured tensor of which some axes are indexed; with the last one it becomes a number."""

    def __init__(self, tensor: torch.Tensor, places: tuple[Any, ...], recorder: Recorder) -> None:
        self.tensor, self.places, self.recorder = tensor, places, recorder

    @property
    def shape(self) -> torch.Size:
        """The axes that are left."""
        left: torch.Size = self.tensor.shape[len(self.places) :]
        return left

    def __len__(self) -> int:
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Any]:
        return (self[n] for n in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        places = (*self.places, *(index if isinstance(index, tuple) else (index,)))
        if any(isinstance(x, slice | torch.Tensor | Part) or x is None or x is Ellipsis for x in places):
            raise TraceError("a captured tensor is indexed by whole numbers and positions alone: slice it outside")
        if len(places) > self.tensor.dim():
            raise TraceError(
                f"a tensor of shape {tuple(self.tensor.shape)} has {self.tensor.dim()} axes, not {len(places)}: give "
                "one index for each"
            )
        for place, size in zip(places, self.tensor.shape, strict=False):
            if isinstance(place, int) and not -size <= place < size:
                raise TraceError(
                    f"a tensor of shape {tuple(self.tensor.shape)} has no place {place} in an axis of {size}: index it "
                    f"by 0 to {size - 1}"
                )
        if len(places) < self.tensor.dim():
            return Part(self.tensor, places, self.recorder)
        number = self.recorder.load(self.tensor, places)
        number.shared = bool(self.places)
        return number

    def refuse(self, *_: Any) -> Any:
        """A row where a number is needed."""
        raise TraceError(
            f"a row of shape {tuple(self.shape)} is no single number: index all axes of its tensor, and make sums and "
            "products of rows outside, as table = a @ b.T, then table[row, key]"
        )

    __neg__ = __abs__ = __array__ = __matmul__ = __rmatmul__ = refuse

    def __getattr__(self, name: str) -> Any:
        """A tensor's methods."""
        return self.refuse() if hasattr(torch.Tensor, name) else object.__getattribute__(self, name)


for name in (*ARITHMETIC, *(f"r{name}" for name in ARITHMETIC), "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Part, f"__{name}__", Part.refuse)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def trace(function: Callable[..., Any], names: Sequence[str], dtype: torch.dtype = torch.float32) -> Formula:
    """Call a function of (`names`) with stand-ins, and give what it does to scores of `dtype` as a formula.

    Raises TraceError with file, line and text of what cannot be traced.

    >>> slopes = torch.tensor([0.5, 0.25])
    >>> names = ("score", "batch", "head", "row", "key")
    >>> trace(lambda score, b, h, q, k: torch.tanh(score) + slopes[h], names).expression
    (tanh(score) + a0[head])
    """
    recorder = Recorder(dtype)
    try:
        with recorder:
            result = function(*(Number(Expression(name, LEAVES[name])) for name in names))
        return Formula(simplify(returned(recorder.loaded(result))), tuple[Any, ...](recorder.tables))
    except TraceError as error:
        raise TraceError(f"{where_in(error, function)}: {error}.") from None
    except Exception as error:
        raise TraceError(
            f"{where_in(error, function)}: {type(error).__name__}: {error}. The function is called as "
            f"function({', '.join(names)}) with stand-ins for numbers: use arithmetic, comparisons, torch's functions "
            "and tensors indexed by positions."
        ) from None
