"""From a user's Python function to an expression: it is called with stand-ins that write down what is done to them.

Decides what can be traced, and explains what cannot with the line that does it. Arrays that the function captures, by a
global name, a closure or a default, are replaced by stand-ins too.
"""

from __future__ import annotations

import dis
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from types import CellType, CodeType, FrameType, FunctionType, MethodType
from typing import Any

import numpy as np

from clearhead.errors import TraceError
from clearhead.rules import captured_arrays as captured
from clearhead.rules import compositions, functions
from clearhead.rules import tracers as standins
from clearhead.rules.captured_arrays import Arrays, Captured
from clearhead.rules.captured_names import PLAIN_TYPES, is_numpys, names_of
from clearhead.rules.expression import LEAVES, Expression, Formula, parts, rewrite
from clearhead.rules.simplification import simplify
from clearhead.rules.tracers import INSTEAD, Traced, as_expression

OURS = (captured, compositions, functions, standins)  # the modules whose functions know stand-ins
MOST_DEPTH = 200  # operations that wait for each other


def trace(function: Callable[..., Any], names: Sequence[str]) -> Formula:
    """Call a function of (`names`) with stand-ins, and give what it does as a formula.

    Raises TraceError with file, line and text of what cannot be traced.

    >>> slopes = np.array([0.5, 0.25])
    >>> trace(lambda score, batch, head, query, key: score + slopes[head] * (key - query),
    ...       ("score", "batch", "head", "query", "key")).expression
    (score + (a0[head] * float((key - query))))
    """
    return traced(function, names, twice=True)[0]


def traced(function: Callable[..., Any], names: Sequence[str], *, twice: bool) -> tuple[Formula, list[Any]]:
    """What a function does, and the arrays whose numbers it looks at; done `twice`, random numbers are told."""
    own = function
    while isinstance(own, partial):
        own = own.func
    code = getattr(own, "__code__", None)
    if twice and code is not None and (line := storing_line(code, frozenset(code.co_freevars))) is not None:
        raise TraceError(f"{place(code.co_filename, line)}: {INSTEAD['store']}.")
    first, arrays = traced_once(function, names, own)
    again, others = traced_once(function, names, own) if twice else (first, arrays)
    if first != again or not all(map(same, arrays, others)):
        raise TraceError(
            f"{described(own)} does something else each time it is called, as random numbers do: a rule is traced "
            "once, so give it fixed arrays instead."
        )
    return reading(simplify(first), arrays), arrays.looked_at


def reading(e: Expression, arrays: list[Any]) -> Formula:
    """An expression with those arrays alone that it reads: others helped to trace it."""
    read = numbers_of(e)
    return Formula(numbered(e, read), tuple(arrays[n] for n in read))


def numbers_of(e: Expression) -> list[int]:
    """The numbers of the arrays that an expression reads."""
    return sorted({part.array or 0 for part in parts(e) if part.op == "load"})


def numbered(e: Expression, read: list[int]) -> Expression:
    """An expression with its arrays' places in a list of numbers for their numbers."""
    number = {old: new for new, old in enumerate(read)}

    def moved(part: Expression) -> Expression | None:
        return replace(part, array=number.get(part.array or 0)) if part.op == "load" else None

    return rewrite(e, moved)


def lines(function: Callable[..., Any], names: Sequence[str]) -> list[tuple[Expression, str]]:
    """What each line of a function writes down, in order and as its formula has it, and where the line is."""
    written: list[tuple[Expression, str]] = []

    def note(e: Expression) -> None:
        written.append((e, place_in(sys._getframe(1))))

    before, standins.noted = standins.noted, note
    try:
        read = numbers_of(simplify(traced_once(function, names, function)[0]))
    except TraceError:  # what it captured may have changed since
        return []
    finally:
        standins.noted = before
    return [(simplify(numbered(e, read)), where) for e, where in written]


def traced_once(function: Callable[..., Any], names: Sequence[str], own: Any) -> tuple[Expression, Arrays]:
    """One call with fresh stand-ins; errors tell of the user's `own` function."""
    arrays = Arrays()
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
    if isinstance(result, Traced):
        return checked_depth(result.expression)
    result = result.arrays.look(result.array) if isinstance(result, Captured) else result
    lone = isinstance(result, np.ndarray) and not result.ndim
    if not lone and not isinstance(result, bool | int | float | np.generic):
        called = "None" if result is None else f"a value of type {type(result).__name__}"
        raise TraceError(f"gives {called} back: give one number or condition, as in `return score * 2`")
    return as_expression(result)


def checked_depth(e: Expression) -> Expression:
    """An expression that is not too deep."""
    if e.depth > MOST_DEPTH:
        raise TraceError(
            f"{e.depth} operations wait for each other, more than the {MOST_DEPTH} that a kernel takes: calculate "
            "arrays beforehand, and index them"
        )
    return e


def same(a: Any, b: Any) -> bool:
    """Whether two traces read the same array, or equal ones."""
    return a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def with_captured(function: Any, arrays: Arrays, known: dict[int, Any]) -> Any:
    """The function with stand-ins for the arrays that it, or a Python function it uses, captures."""
    if id(function) in known:
        return known[id(function)]
    if isinstance(function, np.ndarray):
        own = Captured(function, arrays)
        return own if function.ndim else own[()]
    if isinstance(function, partial):
        change = partial(with_captured, arrays=arrays, known=known)
        bound = {name: change(x) for name, x in function.keywords.items()}
        return partial(change(function.func), *map(change, function.args), **bound)
    if isinstance(function, MethodType):
        return MethodType(with_captured(function.__func__, arrays, known), function.__self__)
    if not isinstance(function, FunctionType):
        return function
    ours = function.__globals__ is globals() or any(function.__globals__ is vars(module) for module in OURS)
    return function if ours or is_numpys(function) else rebuilt_function(function, arrays, known)


def rebuilt_function(function: FunctionType, arrays: Arrays, known: dict[int, Any]) -> Callable[..., Any]:
    """The same code with its own globals, closure and defaults."""
    scope = dict(function.__globals__)
    cells = tuple(CellType() for _ in function.__closure__ or ())
    copy = FunctionType(function.__code__, scope, function.__name__, None, cells or None)
    wrong, names = unsound_line(function.__code__), names_of(function.__code__).globals
    rebuilt: Callable[..., Any] = copy if wrong is None else for_plain_numbers(copy, *wrong)
    known[id(function)] = rebuilt  # before what it captures: it may capture itself
    for name in names & ASKING.keys() - scope.keys():
        scope[name] = ASKING[name]
    for name in names & scope.keys():
        if isinstance(scope[name], np.ndarray | FunctionType | MethodType | partial):
            scope[name] = with_captured(scope[name], arrays, known)
    for cell, old in zip(cells, function.__closure__ or (), strict=True):
        try:
            cell.cell_contents = with_captured(old.cell_contents, arrays, known)
        except ValueError:  # still empty
            continue
    copy.__defaults__ = tuple(with_captured(x, arrays, known) for x in function.__defaults__ or ()) or None
    keywords = function.__kwdefaults__ or {}
    copy.__kwdefaults__ = {name: with_captured(x, arrays, known) for name, x in keywords.items()}
    return rebuilt


def for_plain_numbers(function: Callable[..., Any], line: int, why: str) -> Callable[..., Any]:
    """A function that does what stand-ins cannot stand, refused where it is given them or what may hold them."""

    def called(*args: Any, **options: Any) -> Any:
        if all(isinstance(x, PLAIN_TYPES) for x in (*args, *options.values())):
            return function(*args, **options)
        raise TraceError(f"{INSTEAD[why]}: line {line} of {getattr(function, '__name__', 'a function')} does")

    return called


def asking(builtin: Callable[..., Any]) -> Callable[..., Any]:
    """One of Python's functions that tell what something is, refused for stand-ins."""

    def asked(x: Any, *others: Any) -> Any:
        if isinstance(x, Traced):
            raise TraceError(INSTEAD["type"])
        return builtin(x, *others)

    return asked


ASKING = {f.__name__: asking(f) for f in (isinstance, type, hasattr, getattr, callable)}


def storing_line(code: CodeType, outer: frozenset[str]) -> int | None:
    """The line that writes to a global name or to one of the `outer` functions' names, if one does."""
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = line_of(instruction) or line
        if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") or (
            instruction.opname == "STORE_DEREF" and instruction.argval in outer
        ):
            return line
    inner = (storing_line(c, outer & frozenset(c.co_freevars)) for c in code.co_consts if isinstance(c, CodeType))
    return next((line for line in inner if line is not None), None)


@cache
def unsound_line(code: CodeType) -> tuple[int, str] | None:
    """The line of an `except` or of a `case` with a class in a function's code, if there is one, and which it is."""
    before, line = "", code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = line_of(instruction) or line
        bare = before == "PUSH_EXC_INFO" and instruction.opname == "POP_TOP"
        if bare or instruction.opname in ("CHECK_EXC_MATCH", "CHECK_EG_MATCH"):
            return line, "catch"
        if instruction.opname in ("MATCH_CLASS", "MATCH_MAPPING", "MATCH_SEQUENCE"):
            return line, "type"
        before = instruction.opname
    inner = (unsound_line(c) for c in code.co_consts if isinstance(c, CodeType))
    return next((found for found in inner if found is not None), None)


def line_of(instruction: dis.Instruction) -> int | None:
    """The line that an instruction begins, or stands in."""
    if isinstance(instruction.starts_line, int) and not isinstance(instruction.starts_line, bool):
        return instruction.starts_line
    return getattr(instruction, "line_number", None)


def libraries() -> tuple[str, ...]:
    """Where the files of clearhead, numpy and torch are."""
    packages = (sys.modules[name] for name in (__name__.partition(".")[0], "numpy", "torch") if name in sys.modules)
    return tuple(os.path.dirname(str(package.__file__)) + os.sep for package in packages)


def place_in(frame: FrameType | None) -> str:
    """The user's line that a call came from."""
    while frame is not None and frame.f_code.co_filename.startswith(libraries()):
        frame = frame.f_back
    return "a rule" if frame is None else place(frame.f_code.co_filename, frame.f_lineno)


def where_in(error: BaseException, function: Any) -> str:
    """The user's line that an error came from: the last one outside of clearhead, numpy and torch."""
    ours = libraries()
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
