"""Traces a user's Python function to a formula: calls it with stand-ins that record the operations on them.

Decides what can be traced, and names the source line of code that cannot. Arrays that the function captures, by a
global name, a closure or a default, are replaced by stand-ins too.
"""

from __future__ import annotations

import dis
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from types import CellType, CodeType, FrameType, FunctionType, MethodType
from typing import Any

import numpy as np

from clearhead.errors import TraceError
from clearhead.rules import captured_arrays as captured
from clearhead.rules import compositions, functions
from clearhead.rules import tracers as standins
from clearhead.rules.captured_arrays import Arrays, Captured
from clearhead.rules.captured_names import MOST_CODES, PLAIN_TYPES, is_numpy_function, names_in_code
from clearhead.rules.expression import LEAVES, Expression, Formula, parts, rewrite
from clearhead.rules.simplification import simplify
from clearhead.rules.tracers import ADVICE, Traced, as_expression

STAND_IN_MODULES = (captured, compositions, functions, standins)  # modules whose functions accept stand-ins
MOST_DEPTH = 200  # of nested operations


def trace(function: Callable[..., Any], names: Sequence[str]) -> Formula:
    """Trace a function with parameters `names` to a formula.

    Raises TraceError with the file, line and source of code that cannot be traced.

    >>> slopes = np.array([0.5, 0.25])
    >>> trace(lambda score, batch, head, query, key: score + slopes[head] * (key - query),
    ...       ("score", "batch", "head", "query", "key")).expression
    (score + (a0[head] * float((key - query))))
    """
    return trace_with_arrays(function, names, twice=True)[0]


def trace_with_arrays(function: Callable[..., Any], names: Sequence[str], *, twice: bool) -> tuple[Formula, list[Any]]:
    """A function's formula, and the arrays whose numbers it used; tracing `twice` detects random numbers."""
    own = function
    while isinstance(own, partial):
        own = own.func
    code = getattr(own, "__code__", None)
    if twice and code is not None and (line := first_store_line(code, frozenset(code.co_freevars))) is not None:
        raise TraceError(f"{source_line(code.co_filename, line)}: {ADVICE['store']}.")
    first, arrays = trace_once(function, names, own)
    again, others = trace_once(function, names, own) if twice else (first, arrays)
    if first != again or not all(map(same_contents, arrays, others)):
        raise TraceError(
            f"{function_description(own)} does something different each time it is called, as random numbers do: a "
            "rule is traced once, so give it fixed arrays instead."
        )
    return formula_of_read_arrays(simplify(first), arrays), arrays.looked_at


def formula_of_read_arrays(e: Expression, arrays: list[Any]) -> Formula:
    """A formula with only the arrays that its expression reads."""
    read = array_numbers(e)
    return Formula(renumber_arrays(e, read), tuple(arrays[n] for n in read))


def array_numbers(e: Expression) -> list[int]:
    """The numbers of the arrays that an expression reads, in order."""
    return sorted({part.array or 0 for part in parts(e) if part.op == "load"})


def renumber_arrays(e: Expression, read: list[int]) -> Expression:
    """Replace each array number by its index in `read`."""
    number = {old: new for new, old in enumerate(read)}

    def moved(part: Expression) -> Expression | None:
        return replace(part, array=number.get(part.array or 0)) if part.op == "load" else None

    return rewrite(e, moved)


def operation_lines(function: Callable[..., Any], names: Sequence[str]) -> list[tuple[Expression, str]]:
    """Each operation that a function records, as in its formula, with its source line."""
    written: list[tuple[Expression, str]] = []

    def note(e: Expression) -> None:
        written.append((e, user_line_of_frame(sys._getframe(1))))

    before, standins.on_operation = standins.on_operation, note
    try:
        read = array_numbers(simplify(trace_once(function, names, function)[0]))
    except TraceError:  # captured values may have changed since
        return []
    finally:
        standins.on_operation = before
    return [(simplify(renumber_arrays(e, read)), where) for e, where in written]


def trace_once(function: Callable[..., Any], names: Sequence[str], own: Any) -> tuple[Expression, Arrays]:
    """Call a function once with new stand-ins; errors name the user's `own` function."""
    arrays = Arrays()
    try:
        rebuilt = with_captured(function, arrays, {})
        result = rebuilt(*(Traced(Expression(name, LEAVES[name])) for name in names))
        return returned_expression(result), arrays
    except Exception as error:
        name = captured_tensor(own) or ("x" if "(got Traced)" in str(error) else None)  # torch's words for an index
        if name is not None:
            raise TraceError(
                f"{user_line_of_error(error, own)}: {name} is a torch tensor, which a rule cannot read: give it as "
                f"{name}.detach().cpu().numpy(), made outside of the rule, or call "
                "clearhead.adapters.torch.flex_attention, whose score_mod and mask_mod read tensors, with gradients."
            ) from None
        if isinstance(error, TraceError):
            raise TraceError(f"{user_line_of_error(error, own)}: {error}.") from None
        signature = f"function({', '.join(names)})"
        raise TraceError(
            f"{user_line_of_error(error, own)}: {type(error).__name__}: {error}. A rule is called as {signature} with "
            "stand-ins for numbers: use arithmetic, comparisons, numpy's functions and arrays indexed by positions."
        ) from None


def captured_tensor(function: Any) -> str | None:
    """The name of a torch tensor that a function reads, if it reads one."""
    if not isinstance(function, FunctionType):
        return None
    read = names_in_code(function.__code__).globals
    known = {name: x for name, x in function.__globals__.items() if name in read}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # still empty
            known[name] = cell.cell_contents
    return next((name for name, x in known.items() if is_tensor(x)), None)


def is_tensor(x: Any) -> bool:
    """Whether something is a torch tensor, without importing torch."""
    return any((kind.__module__, kind.__name__) == ("torch", "Tensor") for kind in type(x).__mro__)


def returned_expression(result: Any) -> Expression:
    """A rule's return value as an expression."""
    if isinstance(result, Traced):
        return checked_depth(result.expression)
    result = result.arrays.look(result.array) if isinstance(result, Captured) else result
    lone = isinstance(result, np.ndarray) and not result.ndim
    if not lone and not isinstance(result, bool | int | float | np.generic):
        called = "None" if result is None else f"a value of type {type(result).__name__}"
        raise TraceError(f"gives {called} back: give one number or condition, as in `return score * 2`")
    return as_expression(result)


def checked_depth(e: Expression) -> Expression:
    """The expression, or TraceError if it is nested too deeply."""
    if e.depth > MOST_DEPTH:
        raise TraceError(
            f"operations are nested {e.depth} deep, more than the {MOST_DEPTH} that a kernel supports: "
            "precompute arrays outside the rule, and index them"
        )
    return e


def same_contents(a: Any, b: Any) -> bool:
    """Whether two arrays have the same dtype, shape and contents."""
    return a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def with_captured(function: Any, arrays: Arrays, known: dict[int, Any]) -> Any:
    """The function, with the arrays that it and its callees capture replaced by stand-ins."""
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
    ours = function.__globals__ is globals() or any(function.__globals__ is vars(module) for module in STAND_IN_MODULES)
    return function if ours or is_numpy_function(function) else rebuilt_function(function, arrays, known)


def rebuilt_function(function: FunctionType, arrays: Arrays, known: dict[int, Any]) -> Callable[..., Any]:
    """A copy of a function with its own globals, closure and defaults."""
    scope = dict(function.__globals__)
    cells = tuple(CellType() for _ in function.__closure__ or ())
    copy = FunctionType(function.__code__, scope, function.__name__, None, cells or None)
    wrong, names = untraceable_line(function.__code__), names_in_code(function.__code__).globals
    rebuilt: Callable[..., Any] = copy if wrong is None else plain_numbers_only(copy, *wrong)
    known[id(function)] = rebuilt  # before its captures are visited: it may capture itself
    for name in names & TYPE_QUERIES.keys() - scope.keys():
        scope[name] = TYPE_QUERIES[name]
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


def plain_numbers_only(function: Callable[..., Any], line: int, why: str) -> Callable[..., Any]:
    """Wrap a function that uses constructs stand-ins cannot record: it accepts plain numbers alone."""

    def called(*args: Any, **options: Any) -> Any:
        if all(isinstance(x, PLAIN_TYPES) for x in (*args, *options.values())):
            return function(*args, **options)
        raise TraceError(f"{ADVICE[why]}: line {line} of {getattr(function, '__name__', 'a function')} does")

    return called


def refusing_stand_ins(builtin: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a builtin that inspects its argument, to refuse stand-ins."""

    def checked_builtin(x: Any, *others: Any) -> Any:
        if isinstance(x, Traced):
            raise TraceError(ADVICE["type"])
        return builtin(x, *others)

    return checked_builtin


TYPE_QUERIES = {f.__name__: refusing_stand_ins(f) for f in (isinstance, type, hasattr, getattr, callable)}


def first_store_line(code: CodeType, outer: frozenset[str]) -> int | None:
    """The first line that assigns to a global or to a name of an `outer` function, or None."""
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = instruction_line(instruction) or line
        if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") or (
            instruction.opname == "STORE_DEREF" and instruction.argval in outer
        ):
            return line
    inner = (first_store_line(c, outer & frozenset(c.co_freevars)) for c in code.co_consts if isinstance(c, CodeType))
    return next((line for line in inner if line is not None), None)


@lru_cache(MOST_CODES)
def untraceable_line(code: CodeType) -> tuple[int, str] | None:
    """The first line with an `except` or a structural `case`, with its key in `ADVICE`, or None."""
    before, line = "", code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = instruction_line(instruction) or line
        bare = before == "PUSH_EXC_INFO" and instruction.opname == "POP_TOP"
        if bare or instruction.opname in ("CHECK_EXC_MATCH", "CHECK_EG_MATCH"):
            return line, "catch"
        if instruction.opname in ("MATCH_CLASS", "MATCH_MAPPING", "MATCH_SEQUENCE"):
            return line, "type"
        before = instruction.opname
    inner = (untraceable_line(c) for c in code.co_consts if isinstance(c, CodeType))
    return next((found for found in inner if found is not None), None)


def instruction_line(instruction: dis.Instruction) -> int | None:
    """The line that an instruction starts or belongs to."""
    if isinstance(instruction.starts_line, int) and not isinstance(instruction.starts_line, bool):
        return instruction.starts_line
    return getattr(instruction, "line_number", None)


def library_folders() -> tuple[str, ...]:
    """The folders of clearhead, numpy and torch."""
    packages = (sys.modules[name] for name in (__name__.partition(".")[0], "numpy", "torch") if name in sys.modules)
    return tuple(os.path.dirname(str(package.__file__)) + os.sep for package in packages)


def user_line_of_frame(frame: FrameType | None) -> str:
    """The innermost line of user code in a call stack."""
    while frame is not None and frame.f_code.co_filename.startswith(library_folders()):
        frame = frame.f_back
    return "a rule" if frame is None else source_line(frame.f_code.co_filename, frame.f_lineno)


def user_line_of_error(error: BaseException, function: Any) -> str:
    """The innermost line of user code in a traceback: outside clearhead, numpy and torch."""
    ours = library_folders()
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    if not own or own[-1].lineno is None:
        return function_description(function)
    return source_line(own[-1].filename, own[-1].lineno)


def source_line(filename: str, line: int) -> str:
    """File, line number and source text."""
    text = linecache.getline(filename, line).strip()
    return f"{filename}, line {line}" + (f", `{text}`" if text else "")


def function_description(function: Any) -> str:
    """A function's name and where it is defined."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__name__", repr(function))
    return name if code is None else f"{name} ({source_line(code.co_filename, code.co_firstlineno)})"
