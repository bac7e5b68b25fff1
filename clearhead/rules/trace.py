"""From a user's Python function to an expression: it is called with stand-ins that write down what is done to them.

Decides what can be traced, and explains what cannot with the line that does it. Arrays that the function captures, by a
global name, a closure or a default, become loads when they are indexed by a stand-in.
"""

from __future__ import annotations

import dis
import linecache
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from clearhead.errors import InputError, TraceError
from clearhead.rules.expression import LEAVES, Expression, Formula, Kind, simplify

KINDS: dict[str, Kind] = {"f": "float", "i": "int", "u": "int", "b": "bool"}
INSTEAD = {
    "bool": "a Python `if`, `and`, `or`, `not`, min() or max() needs one truth, but this differs from pair to pair: "
    "use np.where(condition, a, b), &, |, ~, np.minimum or np.maximum",
    "number": "int(), float(), range() and math's functions need one number: use numpy's functions, as np.exp(score)",
    "iterate": "positions and scores are single numbers, which cannot be unpacked or looped over",
    "store": "a rule cannot store anything: give the new score back",
}


class Traced:
    """A stand-in for a number that differs from pair to pair."""

    __array_priority__ = 1000
    __hash__ = object.__hash__

    def __init__(self, expression: Expression) -> None:
        self.expression = expression

    def __repr__(self) -> str:
        return repr(self.expression)

    def __bool__(self) -> bool:
        raise TraceError(INSTEAD["bool"])

    def refuse_number(self, *_: Any) -> Any:
        """int(), float(), indexing a list."""
        raise TraceError(INSTEAD["number"])

    __int__ = __float__ = __index__ = __complex__ = __round__ = refuse_number

    def __iter__(self) -> Any:
        raise TraceError(INSTEAD["iterate"])

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TraceError(INSTEAD["number"])

    def __pow__(self, power: Any) -> Any:
        if not isinstance(power, int) or isinstance(power, bool) or not 1 <= power <= 8:
            raise TraceError(f"** {power!r}: only whole powers from 1 to 8 can be traced; use np.exp and np.log")
        result = self
        for _ in range(power - 1):
            result = apply("mul", result, self)
        return result

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        op = UFUNCS.get(ufunc.__name__)
        if op is None or method != "__call__" or options:
            raise TraceError(f"np.{ufunc.__name__} cannot be traced: the functions are {', '.join(sorted(UFUNCS))}")
        return inputs[0] ** 2 if op == "square" else apply(op, *inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.where and len(args) == 3 and not kwargs:
            return apply("where", *args)
        if function is np.clip and len(args) == 3 and not kwargs:
            return apply("min", apply("max", args[0], args[1]), args[2])
        raise TraceError(f"np.{function.__name__} cannot be traced: use np.where, np.clip or arithmetic")


def operator(op: str, *, turned: bool = False) -> Callable[..., Any]:
    """A Python operator as an operation."""

    def method(self: Traced, *others: Any) -> Any:
        return apply(op, *others, self) if turned else apply(op, self, *others)

    return method


BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floordiv", "mod": "mod", "and": "and",
    "or": "or", "xor": "xor",
}  # fmt: skip
for name, op in BINARY.items():
    setattr(Traced, f"__{name}__", operator(op))
    setattr(Traced, f"__r{name}__", operator(op, turned=True))
for name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs"):
    setattr(Traced, f"__{name}__", operator(name))
setattr(Traced, "__invert__", operator("not"))  # noqa: B010

UFUNCS = {
    "exp": "exp", "log": "log", "tanh": "tanh", "sqrt": "sqrt", "absolute": "abs", "fabs": "abs", "negative": "neg",
    "minimum": "min", "maximum": "max", "fmin": "min", "fmax": "max", "add": "add", "subtract": "sub",
    "multiply": "mul", "divide": "div", "floor_divide": "floordiv", "remainder": "mod", "less": "lt",
    "less_equal": "le", "greater": "gt", "greater_equal": "ge", "equal": "eq", "not_equal": "ne", "logical_and": "and",
    "logical_or": "or", "logical_xor": "xor", "logical_not": "not", "bitwise_and": "and", "bitwise_or": "or",
    "bitwise_xor": "xor", "invert": "not", "square": "square",
}  # fmt: skip
FLOAT_ONLY = ("div", "exp", "log", "tanh", "sigmoid", "sqrt")
INT_ONLY = ("floordiv", "mod")
BOOL_ONLY = ("and", "or", "xor", "not")
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


def apply(op: str, *inputs: Any) -> Traced:
    """Write down one operation; whole numbers become floats where a float needs them."""
    args = [as_expression(x) for x in inputs]
    if op == "where":
        if args[0].kind != "bool":
            raise TraceError(f"np.where needs a condition, but {args[0]!r} is a number: compare it with something")
        a, b = common_kind(args[1:])
        return Traced(Expression("where", a.kind, (args[0], a, b)))
    if op in BOOL_ONLY:
        wrong = next((a for a in args if a.kind != "bool"), None)
        if wrong is not None:
            raise TraceError(f"&, |, ^ and ~ join comparisons, but {wrong!r} is a number: compare it with something")
        return Traced(Expression(op, "bool", tuple(args)))
    args = common_kind(args)
    if args[0].kind == "bool" and not (op in ("eq", "ne") and len(args) == 2):
        args = [Expression("int", "int", (a,)) for a in args]
    if op in FLOAT_ONLY and args[0].kind != "float":
        args = [Expression("float", "float", (a,)) for a in args]
    if op in INT_ONLY and args[0].kind == "float":
        raise TraceError(f"// and % are for whole numbers, but {args[0]!r} or {args[-1]!r} is a float")
    return Traced(Expression(op, "bool" if op in COMPARISONS else args[0].kind, tuple(args)))


def common_kind(args: list[Expression]) -> list[Expression]:
    """All of the widest kind among them."""
    kinds = {a.kind for a in args}
    if len(kinds) == 1:
        return args
    wide: Kind = "float" if "float" in kinds else "int"
    return [a if a.kind == wide else Expression(wide, wide, (a,)) for a in args]


def as_expression(x: Any) -> Expression:
    """A stand-in's expression, or a constant's."""
    if isinstance(x, Traced):
        return x.expression
    if isinstance(x, Captured):
        x = x.array
    number = np.asarray(x)
    if number.ndim or number.dtype.kind not in KINDS:
        raise TraceError(f"{x!r} is no single number: index an array by positions, as in array[head]")
    kind = KINDS[number.dtype.kind]
    value = number.item()
    if kind == "int" and not -(2**31) <= value < 2**31:
        raise TraceError(f"{value} does not fit into 32 bits, which positions have in a float32 kernel")
    return Expression("constant", kind, value=value)


class Captured:
    """A captured array: indexed by stand-ins it becomes a load, else it is the array."""

    def __init__(self, array: Any, arrays: list[Any]) -> None:
        self.array, self.arrays = array, arrays

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if not any(isinstance(x, Traced) for x in parts):
            return self.array[index]
        shape = self.array.shape
        if len(parts) != len(shape) or any(isinstance(x, slice) or x is None or x is Ellipsis for x in parts):
            raise TraceError(f"an array of shape {shape} needs {len(shape)} positions between its brackets")
        if 0 in shape:
            raise TraceError(f"an array of shape {shape} is empty: nothing can be read from it")
        kind = KINDS.get(self.array.dtype.kind)
        if kind is None or not self.array.dtype.isnative or self.array.dtype.itemsize > 8:
            raise TraceError(f"an array of dtype {self.array.dtype} cannot be read: convert it to float32")
        places = [as_expression(x) for x in parts]
        wrong = next((p for p in places if p.kind != "int"), None)
        if wrong is not None:
            raise TraceError(f"{wrong!r} is no whole number and cannot be an index")
        number = next((n for n, a in enumerate(self.arrays) if a is self.array), len(self.arrays))
        if number == len(self.arrays):
            self.arrays.append(self.array)
        return Traced(Expression("load", kind, tuple(places), array=number))

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TraceError(INSTEAD["store"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, *args: Any, **options: Any) -> Any:
        return np.asarray(self.array, *args)


def trace(function: Callable[..., Any], names: Sequence[str]) -> Formula:
    """Call a function of (`names`) with stand-ins, and give what it does as a formula.

    Raises TraceError with file, line and text of what cannot be traced.

    >>> slopes = np.array([0.5, 0.25])
    >>> trace(lambda score, batch, head, query, key: score + slopes[head] * (key - query),
    ...       ("score", "batch", "head", "query", "key")).expression
    (score + (a0[head] * float((key - query))))
    """
    first, arrays = traced_once(function, names)
    again, _ = traced_once(function, names)
    if first != again:
        raise TraceError(
            f"{described(function)} does something else each time it is called, as random numbers do: a rule is traced "
            "once, so give it fixed arrays instead."
        )
    return Formula(simplify(first), tuple(arrays))


def traced_once(function: Callable[..., Any], names: Sequence[str]) -> tuple[Expression, list[Any]]:
    """One call with fresh stand-ins."""
    arrays: list[Any] = []
    code = getattr(function, "__code__", None)
    if code is not None and (line := storing_line(code)) is not None:
        raise TraceError(f"{place(code.co_filename, line)}: {INSTEAD['store']}.")
    rebuilt = with_captured(function, arrays, {})
    try:
        result = rebuilt(*(Traced(Expression(name, LEAVES[name])) for name in names))
        return as_expression(result), arrays
    except TraceError as error:
        raise TraceError(f"{where_in(error, function)}: {error}.") from None
    except InputError:
        raise
    except Exception as error:
        asked = f"function({', '.join(names)})"
        raise TraceError(
            f"{where_in(error, function)}: {type(error).__name__}: {error}. A rule is called as {asked} with stand-ins "
            "for numbers: use arithmetic, comparisons, numpy's functions and arrays indexed by positions."
        ) from None


def with_captured(function: Any, arrays: list[Any], known: dict[int, Any]) -> Any:
    """The function with stand-ins for the arrays that it, or a Python function it uses, captures."""
    if id(function) in known:
        return known[id(function)]
    if isinstance(function, np.ndarray):
        return Captured(function, arrays)
    if isinstance(function, partial):
        change = partial(with_captured, arrays=arrays, known=known)
        bound = {name: change(x) for name, x in function.keywords.items()}
        return partial(change(function.func), *map(change, function.args), **bound)
    if not isinstance(function, FunctionType):
        return function
    if any(function.__globals__ is vars(module) for module in own_modules()):
        return function
    return rebuilt_function(function, arrays, known)


def own_modules() -> list[ModuleType]:
    """The modules whose functions know stand-ins."""
    names = (__name__, __name__.replace("trace", "functions"))
    return [sys.modules[name] for name in names if name in sys.modules]


def rebuilt_function(function: FunctionType, arrays: list[Any], known: dict[int, Any]) -> FunctionType:
    """The same code with its own globals, closure and defaults."""
    names = named(function.__code__)
    scope = dict(function.__globals__)
    cells = tuple(CellType() for _ in function.__closure__ or ())
    copy = FunctionType(function.__code__, scope, function.__name__, None, cells or None)
    known[id(function)] = copy  # before what it captures: it may capture itself
    for name in names & scope.keys():
        if isinstance(scope[name], np.ndarray | FunctionType | partial):
            scope[name] = with_captured(scope[name], arrays, known)
    for cell, old in zip(cells, function.__closure__ or (), strict=True):
        try:
            cell.cell_contents = with_captured(old.cell_contents, arrays, known)
        except ValueError:  # still empty
            continue
    copy.__defaults__ = tuple(with_captured(x, arrays, known) for x in function.__defaults__ or ()) or None
    keywords = function.__kwdefaults__ or {}
    copy.__kwdefaults__ = {name: with_captured(x, arrays, known) for name, x in keywords.items()}
    return copy


def named(code: CodeType) -> set[str]:
    """All global names a function's code, and the code inside it, may use."""
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*(named(c) for c in inner))


def storing_line(code: CodeType) -> int | None:
    """The line that writes to a variable of others, if one does."""
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        if isinstance(instruction.starts_line, int) and not isinstance(instruction.starts_line, bool):
            line = instruction.starts_line
        line = getattr(instruction, "line_number", None) or line
        if instruction.opname == "STORE_GLOBAL" or (
            instruction.opname == "STORE_DEREF" and instruction.argval in code.co_freevars
        ):
            return line
    return None


def where_in(error: BaseException, function: Any) -> str:
    """The user's line that an error came from: the last one outside of this package and numpy."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "numpy" not in frame.filename]
    own = [frame for frame in own if not frame.filename.endswith("rules/functions.py")]
    if not own or own[-1].lineno is None:
        return described(function)
    return place(own[-1].filename, own[-1].lineno)


def place(filename: str, line: int) -> str:
    """File, line and its text."""
    text = linecache.getline(filename, line).strip()
    return f"{filename}, line {line}" + (f", `{text}`" if text else "")


def described(function: Any) -> str:
    """A function's name and where it stands."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__name__", repr(function))
    return name if code is None else f"{name} ({place(code.co_filename, code.co_firstlineno)})"
