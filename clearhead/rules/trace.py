"""From a user's Python function to an expression: it is called with stand-ins that write down what is done to them.

Decides what can be traced, and explains what cannot with the line that does it. Arrays that the function captures, by a
global name, a closure or a default, become loads when they are indexed by a stand-in.
"""

from __future__ import annotations

import dis
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from clearhead.errors import TraceError
from clearhead.rules.expression import LEAVES, Expression, Formula, Kind, simplify

KINDS: dict[str, Kind] = {"f": "float", "i": "int", "u": "int", "b": "bool"}
INSTEAD = {
    "bool": "a Python `if`, `and`, `or`, `not`, min() or max() needs one truth, but this differs from pair to pair: "
    "use np.where(condition, a, b), &, |, ~, np.minimum or np.maximum",
    "number": "int(), float(), round() and math's functions need one number: use numpy's functions, as np.exp(score)",
    "index": "only a numpy array can be indexed by a position, and only one that is made outside of the rule and has a "
    "name of its own: make one of a list, or of what an object holds; range() of a position is impossible",
    "array": "positions and scores cannot be put into an array, nor index one that is made inside of the rule or held "
    "by an object: make it outside, and give it a name of its own",
    "iterate": "positions and scores are single numbers, which cannot be unpacked or looped over",
    "store": "a rule cannot store anything: give the new score back",
}
MOST_DEPTH = 200  # operations that wait for each other


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
        """int(), float(), round()."""
        raise TraceError(INSTEAD["number"])

    __int__ = __float__ = __complex__ = __round__ = refuse_number

    def __index__(self) -> int:
        raise TraceError(INSTEAD["index"])

    def __iter__(self) -> Any:
        raise TraceError(INSTEAD["iterate"])

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TraceError(INSTEAD["array"])

    def __pos__(self) -> Any:
        return self

    def __pow__(self, power: Any) -> Any:
        if not isinstance(power, int) or isinstance(power, bool) or not 1 <= power <= 8:
            raise TraceError(f"** {power!r}: only whole powers from 1 to 8 can be traced; use np.exp and np.log")
        result = self
        for _ in range(power - 1):
            result = apply("mul", result, self)
        return result

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            raise TraceError(INSTEAD["store"])
        if method != "__call__" or options:
            raise TraceError(f"np.{ufunc.__name__} can be traced only as np.{ufunc.__name__}(…) of what it works on")
        if ufunc.__name__ in COMPOSED:
            return COMPOSED[ufunc.__name__](*(Traced(as_expression(x)) for x in inputs[:1]), *inputs[1:])
        if ufunc.__name__ not in UFUNCS:
            names = ", ".join(sorted({*UFUNCS, *COMPOSED}))
            raise TraceError(f"np.{ufunc.__name__} cannot be traced: the functions are {names}")
        return apply(UFUNCS[ufunc.__name__], *inputs)

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
    "bitwise_xor": "xor", "invert": "not",
}  # fmt: skip
COMPOSED: dict[str, Callable[..., Any]] = {
    "square": lambda x: x * x,
    "power": lambda x, power: x**power,
    "positive": lambda x: x,
    "sign": lambda x: np.where(x > 0, 1, np.where(x < 0, -1, x)),
}
FLOAT_ONLY = ("div", "exp", "log", "tanh", "sigmoid", "sqrt")
INT_ONLY = ("floordiv", "mod")
BOOL_ONLY = ("and", "or", "xor", "not")
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


def apply(op: str, *inputs: Any) -> Traced:
    """Write down one operation, of the stand-ins' class; whole numbers become floats where a float needs them."""
    own = next((type(x) for x in inputs if isinstance(x, Traced)), Traced)
    args = [as_expression(x) for x in inputs]
    if op == "where":
        if args[0].kind != "bool":
            raise TraceError(f"np.where needs a condition, but {args[0]!r} is a number: compare it with something")
        a, b = common_kind(args[1:])
        return own(Expression("where", a.kind, (args[0], a, b)))
    if op in BOOL_ONLY:
        wrong = next((a for a in args if a.kind != "bool"), None)
        if wrong is not None:
            raise TraceError(f"&, |, ^ and ~ join comparisons, but {wrong!r} is a number: compare it with something")
        return own(Expression(op, "bool", tuple(args)))
    args = common_kind(args)
    if args[0].kind == "bool" and op in ("add", "sub", "neg"):
        raise TraceError(f"conditions such as {args[0]!r} are no numbers to add or subtract: use |, &, ^ or np.where")
    if args[0].kind == "bool" and not (op in ("eq", "ne") and len(args) == 2):
        args = [Expression("int", "int", (a,)) for a in args]
    if op in FLOAT_ONLY and args[0].kind != "float":
        args = [Expression("float", "float", (a,)) for a in args]
    if op in INT_ONLY and args[0].kind == "float":
        raise TraceError(f"// and % are for whole numbers, but {args[0]!r} or {args[-1]!r} is a float")
    return own(Expression(op, "bool" if op in COMPARISONS else args[0].kind, tuple(args)))


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
    number = np.asarray(x)
    if number.ndim or number.dtype.kind not in KINDS:
        raise TraceError(f"{x!r} is no single number: index an array by positions, as in array[head]")
    kind = KINDS[number.dtype.kind]
    value = number.item()
    if kind == "int" and not -(2**31) <= value < 2**31:
        raise TraceError(f"{value} does not fit into 32 bits, which positions have in a float32 kernel")
    return Expression("constant", kind, value=value)


class Captured(np.lib.mixins.NDArrayOperatorsMixin):
    """A captured array: indexed by stand-ins it becomes a load, else it is the array, and what is made of it is too."""

    def __init__(self, array: Any, arrays: list[Any]) -> None:
        self.array, self.arrays = array, arrays

    def __repr__(self) -> str:
        return f"an array of shape {self.array.shape}"

    def like(self, result: Any) -> Any:
        """Parts and elementwise functions of captured arrays are captured arrays."""
        return Captured(result, self.arrays) if isinstance(result, np.ndarray) else result

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(x, Traced) for x in parts):
            return self.load(parts)
        plain = tuple(x.array if isinstance(x, Captured) else x for x in parts)
        return self.like(self.array[plain])

    def load(self, parts: tuple[Any, ...]) -> Traced:
        """One element for each pair."""
        shape, dtype = self.array.shape, self.array.dtype
        if len(parts) != len(shape) or any(isinstance(x, slice) or x is None or x is Ellipsis for x in parts):
            raise TraceError(f"an array of shape {shape} needs {len(shape)} positions between its brackets")
        if 0 in shape:
            raise TraceError(f"an array of shape {shape} is empty: nothing can be read from it")
        kind = "float" if dtype.name == "bfloat16" else KINDS.get(dtype.kind)
        if kind is None or not dtype.isnative or dtype.itemsize > 8 or isinstance(self.array, np.ma.MaskedArray):
            called = f"a {type(self.array).__name__}" if kind else "an array"
            raise TraceError(f"{called} of dtype {dtype} cannot be read: convert it to a plain array of float32")
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
        return self.like(getattr(self.array, name))

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, *args: Any, **options: Any) -> Any:
        return np.asarray(self.array, *args)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            raise TraceError(INSTEAD["store"])
        if any(isinstance(x, Traced) for x in inputs):
            return NotImplemented  # stand-ins write it down
        plain = (x.array if isinstance(x, Captured) else x for x in inputs)
        return self.like(getattr(ufunc, method)(*plain, **options))


def trace(function: Callable[..., Any], names: Sequence[str]) -> Formula:
    """Call a function of (`names`) with stand-ins, and give what it does as a formula.

    Raises TraceError with file, line and text of what cannot be traced.

    >>> slopes = np.array([0.5, 0.25])
    >>> trace(lambda score, batch, head, query, key: score + slopes[head] * (key - query),
    ...       ("score", "batch", "head", "query", "key")).expression
    (score + (a0[head] * float((key - query))))
    """
    own = function
    while isinstance(own, partial):
        own = own.func
    code = getattr(own, "__code__", None)
    if code is not None and (line := storing_line(code, frozenset(code.co_freevars))) is not None:
        raise TraceError(f"{place(code.co_filename, line)}: {INSTEAD['store']}.")
    first, arrays = traced_once(function, names, own)
    again, others = traced_once(function, names, own)
    if first != again or not all(map(same, arrays, others)):
        raise TraceError(
            f"{described(own)} does something else each time it is called, as random numbers do: a rule is traced "
            "once, so give it fixed arrays instead."
        )
    return Formula(simplify(first), tuple(arrays))


def traced_once(function: Callable[..., Any], names: Sequence[str], own: Any) -> tuple[Expression, list[Any]]:
    """One call with fresh stand-ins; errors tell of the user's `own` function."""
    arrays: list[Any] = []
    try:
        rebuilt = with_captured(function, arrays, {})
        result = rebuilt(*(Traced(Expression(name, LEAVES[name])) for name in names))
        return returned(result), arrays
    except TraceError as error:
        raise TraceError(f"{where_in(error, own)}: {error}.") from None
    except Exception as error:
        asked = f"function({', '.join(names)})"
        raise TraceError(
            f"{where_in(error, own)}: {type(error).__name__}: {error}. A rule is called as {asked} with stand-ins "
            "for numbers: use arithmetic, comparisons, numpy's functions and arrays indexed by positions."
        ) from None


def returned(result: Any) -> Expression:
    """What a rule gives back, as an expression."""
    result = result.array if isinstance(result, Captured) else result
    lone = isinstance(result, np.ndarray) and not result.ndim
    if not lone and not isinstance(result, Traced | bool | int | float | np.generic):
        called = "None" if result is None else f"a value of type {type(result).__name__}"
        raise TraceError(f"gives {called} back: give one number or condition, as in `return score * 2`")
    e = as_expression(result)
    if e.depth > MOST_DEPTH:
        raise TraceError(
            f"{e.depth} operations wait for each other, more than the {MOST_DEPTH} that a kernel takes: calculate "
            "arrays beforehand, and index them"
        )
    return e


def same(a: Any, b: Any) -> bool:
    """Whether two traces read the same array, or equal ones."""
    return a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


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


def storing_line(code: CodeType, outer: frozenset[str]) -> int | None:
    """The line that writes to a global name or to one of the `outer` functions' names, if one does."""
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        if isinstance(instruction.starts_line, int) and not isinstance(instruction.starts_line, bool):
            line = instruction.starts_line
        line = getattr(instruction, "line_number", None) or line
        if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") or (
            instruction.opname == "STORE_DEREF" and instruction.argval in outer
        ):
            return line
    inner = (storing_line(c, outer & frozenset(c.co_freevars)) for c in code.co_consts if isinstance(c, CodeType))
    return next((line for line in inner if line is not None), None)


def where_in(error: BaseException, function: Any) -> str:
    """The user's line that an error came from: the last one outside of clearhead, numpy and torch."""
    packages = (sys.modules[name] for name in (__name__.partition(".")[0], "numpy", "torch") if name in sys.modules)
    ours = tuple(os.path.dirname(str(package.__file__)) + os.sep for package in packages)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
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
