"""From a function written for torch to an expression: torch's functions and captured tensors, written down.

Decides which of torch's functions can be traced, and that an indexed tensor becomes a load. A tensor that the function
captures, or makes of captured ones, is an operand of the call afterwards, with a gradient if it wants one. Everything
else, errors included, is `rules.trace`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from clearhead.errors import TraceError
from clearhead.rules.expression import LEAVES, Expression, Formula, Kind, simplify
from clearhead.rules.trace import COMPOSED, UFUNCS, Traced, apply, as_expression, returned, where_in

OPERATORS = {
    "add": "add", "sub": "sub", "subtract": "sub", "mul": "mul", "multiply": "mul", "div": "div", "divide": "div",
    "true_divide": "div", "floor_divide": "floordiv", "remainder": "mod", "neg": "neg", "negative": "neg", "abs": "abs",
    "lt": "lt", "less": "lt", "le": "le", "less_equal": "le", "gt": "gt", "greater": "gt", "ge": "ge",
    "greater_equal": "ge", "eq": "eq", "ne": "ne", "not_equal": "ne", "sigmoid": "sigmoid", "where": "where",
    **{name: op for name, op in UFUNCS.items() if name not in ("divide", "absolute")},
}  # fmt: skip
TURNED = {"rsub": "sub", "rdiv": "div", "rtruediv": "div", "rfloordiv": "floordiv", "rmod": "mod", "rremainder": "mod"}
SAME = ("to", "float", "double", "half", "bfloat16", "clone", "contiguous", "detach", "type_as", "item", "squeeze")


class Number(Traced):
    """A stand-in that torch's functions know."""

    device = torch.device("cpu")
    dtype = torch.float32
    shape = torch.Size(())
    ndim = 0

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return written(function, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        """A tensor's methods."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name in SAME:
            return lambda *_, **__: self
        if name in ("long", "int"):
            return lambda: (
                self if self.expression.kind == "int" else Number(Expression("int", "int", (self.expression,)))
            )
        if name == "bool":
            return lambda: self if self.expression.kind == "bool" else apply("ne", self, 0)
        if name.startswith("new_"):
            return lambda *args, **options: getattr(torch.zeros(()), name)(*args, **options)
        return lambda *args, **options: written_as(name, (self, *args), options)

    def __pow__(self, power: Any) -> Any:
        if power == 0.5:
            return apply("sqrt", self)
        return super().__pow__(int(power) if isinstance(power, float) and power.is_integer() else power)


def left_to_torch(name: str) -> Callable[[Number, Any], Any]:
    """An operator that lets torch meet a tensor on its other side, so that it is loaded rather than read."""
    own = getattr(Traced, name)

    def operator(self: Number, other: Any) -> Any:
        return NotImplemented if isinstance(other, torch.Tensor) else own(self, other)

    return operator


for operation in ("add", "sub", "mul", "truediv", "floordiv", "mod", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Number, f"__{operation}__", left_to_torch(f"__{operation}__"))


class Recorder(TorchFunctionMode):  # type: ignore[misc]
    """While it is in force, tensors that meet a stand-in are written down."""

    def __init__(self, tables: list[torch.Tensor]) -> None:
        super().__init__()
        self.tables = tables

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.Tensor.__getitem__:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(x, Number | Part) for x in index):
                return Part(args[0], (), self).__getitem__(args[1])
        if any(isinstance(x, Number | Part) for x in (*args, *(kwargs or {}).values())):
            plain = (self.loaded(x) for x in args)
            return written(function, tuple(plain), {name: self.loaded(x) for name, x in (kwargs or {}).items()})
        return function(*args, **(kwargs or {}))

    def loaded(self, x: Any) -> Any:
        """A tensor of one number as a load of it; anything else as it is."""
        if not isinstance(x, torch.Tensor) or x.dim():
            return x
        return x.item() if not x.requires_grad else self.load(x.reshape(1), (0,))

    def load(self, tensor: torch.Tensor, places: tuple[Any, ...]) -> Number:
        """One element for each pair."""
        if tensor.numel() == 0:
            raise TraceError(f"a tensor of shape {tuple(tensor.shape)} is empty: nothing can be read from it")
        kind: Kind = "float" if tensor.is_floating_point() else "bool" if tensor.dtype is torch.bool else "int"
        index = tuple(as_expression(x) for x in places)
        wrong = next((e for e in index if e.kind != "int"), None)
        if wrong is not None:
            raise TraceError(f"{wrong!r} is no whole number and cannot be an index")
        number = next((n for n, x in enumerate(self.tables) if x is tensor), len(self.tables))
        if number == len(self.tables):
            self.tables.append(tensor)
        return Number(Expression("load", kind, index, array=number))


class Part:
    """A captured tensor of which some axes are indexed; with the last one it becomes a number."""

    def __init__(self, tensor: torch.Tensor, places: tuple[Any, ...], recorder: Recorder) -> None:
        self.tensor, self.places, self.recorder = tensor, places, recorder

    def __getitem__(self, index: Any) -> Any:
        places = (*self.places, *(index if isinstance(index, tuple) else (index,)))
        if any(isinstance(x, slice | torch.Tensor) or x is None or x is Ellipsis for x in places):
            raise TraceError("a captured tensor is indexed by whole numbers and positions alone: slice it outside")
        if len(places) > self.tensor.dim():
            raise TraceError(f"a tensor of shape {tuple(self.tensor.shape)} has no {len(places)} axes to index")
        if len(places) < self.tensor.dim():
            return Part(self.tensor, places, self.recorder)
        return self.recorder.load(self.tensor, places)


def written(function: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
    """One of torch's functions, written down."""
    return written_as(getattr(function, "__name__", repr(function)), tuple(args), options)


def written_as(called: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The same by its name."""
    name = called.strip("_")
    if options.pop("rounding_mode", None) == "floor":
        name = "floor_divide"
    if name in ("clamp", "clip"):
        low, high = (*args[1:], None, None)[:2]
        low, high = options.get("min", low), options.get("max", high)
        result = args[0] if low is None else apply("max", args[0], low)
        return result if high is None else apply("min", result, high)
    if name in ("zeros_like", "ones_like", "full_like"):
        value = {"zeros_like": 0.0, "ones_like": 1.0}.get(name, options.get("fill_value", args[-1]))
        return Number(as_expression(value))
    args = (*args, *options.values()) if set(options) <= {"other", "input", "exponent"} else ()
    if name in ("pow", "float_power"):
        return args[0] ** args[1]
    if name == "rsqrt":
        return apply("div", 1.0, apply("sqrt", args[0]))
    if name == "relu":
        return apply("max", args[0], 0)
    if name in COMPOSED and args:
        return COMPOSED[name](*args)
    if name in SAME and args:
        return args[0]
    name = name if name in OPERATORS or name in TURNED or not name.startswith("r") else name[1:]
    if not args or name not in {**OPERATORS, **TURNED}:
        raise TraceError(f"torch.{called} cannot be traced: the functions are {', '.join(sorted(OPERATORS))}")
    return apply(TURNED[name], *args[::-1]) if name in TURNED else apply(OPERATORS[name], *args)


def trace(function: Callable[..., Any], names: Sequence[str]) -> Formula:
    """Call a function of (`names`) with stand-ins, and give what it does as a formula that reads tensors.

    Raises TraceError with file, line and text of what cannot be traced.

    >>> slopes = torch.tensor([0.5, 0.25])
    >>> names = ("score", "batch", "head", "row", "key")
    >>> trace(lambda score, b, h, q, k: torch.tanh(score) + slopes[h], names).expression
    (tanh(score) + a0[head])
    """
    tables: list[torch.Tensor] = []
    recorder = Recorder(tables)
    try:
        with recorder:
            result = function(*(Number(Expression(name, LEAVES[name])) for name in names))
            result = recorder.loaded(result)
        return Formula(simplify(returned(result)), tuple(tables))
    except TraceError as error:
        raise TraceError(f"{where_in(error, function)}: {error}.") from None
