"""Records what a function captures by name and attribute, to check in every call whether it has changed.

Decides what can be compared: globals, closures, defaults, the contents of modules, simple objects and containers, and
the numbers of arrays that tracing used. A function that reaches anything else, such as the clock, is not comparable.
"""

from __future__ import annotations

import builtins
import dis
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from operator import is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

MISSING = object()  # the value of an undefined name
MOST_BYTES = 1 << 16  # largest array whose contents are compared in every call
MOST_CONTAINER_ITEMS = 256  # largest container that is compared
MOST_CODES = 1024  # of functions whose code was read
DISPATCHED = type(np.where)
PLAIN_TYPES = (int, float, complex, bool, str, bytes, type(None), type(Ellipsis), range, slice, np.generic, np.dtype)
PURE = {
    "abs", "all", "any", "bool", "callable", "complex", "dict", "divmod", "enumerate", "filter", "float", "frozenset",
    "int", "isinstance", "issubclass", "len", "list", "map", "max", "min", "object", "pow", "print", "range", "repr",
    "reversed", "round", "set", "slice", "sorted", "str", "sum", "tuple", "type", "zip",
}  # fmt: skip
PURE_MODULES = ("math", "cmath", "numpy", "_operator", "builtins")
CLASS_ATTRIBUTES = {  # attributes that every class may define
    "__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__qualname__", "__static_attributes__",
    "__firstlineno__", "__orig_bases__", "__parameters__", "__annotations_cache__", "__annotate_func__",
    "__conditional_annotations__", "__dataclass_fields__", "__dataclass_params__", "__match_args__",
}  # fmt: skip
INSTANCE_ATTRIBUTES = CLASS_ATTRIBUTES | {
    "__init__", "__new__", "__repr__", "__str__", "__hash__", "__eq__", "__call__", "__post_init__", "__replace__",
}  # fmt: skip


class Incomparable(Exception):  # noqa: N818
    """A function reaches an object that cannot be compared."""


@dataclass
class CapturedNames:
    """The values that names had during tracing."""

    names: list[tuple[Mapping[str, Any], str, Any]] = field(default_factory=list)
    cells: list[tuple[CellType, Any]] = field(default_factory=list)
    functions: list[tuple[FunctionType, CodeType, Any, Any]] = field(default_factory=list)
    containers: list[tuple[Any, tuple[Any, ...]]] = field(default_factory=list)
    shapes: list[tuple[Any, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    numbers: list[tuple[Any, bytes]] = field(default_factory=list)

    def unchanged(self) -> bool:
        """Whether every recorded value is still the same."""
        for where, name, value in self.names:
            if where.get(name, MISSING) is not value:
                return False
        for cell, value in self.cells:
            if cell_value(cell) is not value:
                return False
        for function, code, defaults, keywords in self.functions:
            if function.__code__ is not code or function.__defaults__ is not defaults:
                return False
            if function.__kwdefaults__ is not keywords:
                return False
        for container, items in self.containers:
            now = tuple(container_items(container))
            if len(now) != len(items) or not all(map(is_, now, items)):
                return False
        for array, shape, strides in self.shapes:
            if array.shape != shape or array.strides != strides:
                return False
        return all(array.tobytes() == seen for array, seen in self.numbers)

    def add_numbers(self, arrays: Iterable[Any]) -> bool:
        """Record the contents of arrays; False if one is too large or holds objects."""
        for x in arrays:
            if x.nbytes > MOST_BYTES or x.dtype.hasobject:
                return False
            self.numbers.append((x, x.tobytes()))
        return True


def captured_names(function: Callable[..., Any]) -> CapturedNames | None:
    """What a function reads, except the arrays it captures by name; None if something cannot be compared.

    >>> factor = 2.0
    >>> def rule(score, batch, head, query, key):
    ...     return score * factor
    >>> seen = captured_names(rule)
    >>> before = seen.unchanged()
    >>> factor = 3.0
    >>> before, seen.unchanged()
    (True, False)
    """
    attributes: frozenset[str] = frozenset()
    try:
        while True:  # a function visited late may use further attributes of objects visited earlier
            visit = Visit(attributes)
            visit.value(function, held=False)
            if visit.attributes == attributes:
                break
            attributes = visit.attributes
    except Incomparable:
        return None
    return visit.captured


class Visit:
    """One walk from a function to everything that the names and attributes in its code reach."""

    def __init__(self, attributes: frozenset[str]) -> None:
        self.attributes = attributes
        self.captured = CapturedNames()
        self.met: dict[tuple[int, bool], Any] = {}

    def value(self, x: Any, *, held: bool = True) -> None:
        """Record any value.

        An array that is `held` by an object, or read by a held function, is compared by its contents, because tracing
        replaces only the arrays that a rule captures by name.
        """
        if isinstance(x, PLAIN_TYPES) or x is MISSING:
            return
        if isinstance(x, np.ndarray):
            self.captured.shapes.append((x, x.shape, x.strides))
            if held and not self.captured.add_numbers([x]):
                raise Incomparable
            return
        if (id(x), held) in self.met:
            return
        self.met[id(x), held] = x
        match x:
            case ModuleType():
                for name in self.attributes & vars(x).keys():
                    self.name(vars(x), name)
            case list() | tuple() | dict() | set() | frozenset():
                self.container(x)
            case FunctionType():
                self.function(x, held=held)
            case MethodType():
                self.value(x.__self__)
                self.value(x.__func__, held=held)
            case partial():
                self.value(x.func, held=held)
                self.container(x.args, held=held)
                self.container(x.keywords, held=held)
            case np.ufunc() | BaseException() | DISPATCHED():
                pass
            case BuiltinFunctionType():
                if x.__module__ not in PURE_MODULES or (x.__module__ == "builtins" and x.__name__ not in PURE):
                    raise Incomparable
                if not isinstance(x.__self__, ModuleType | type(None)):
                    raise Incomparable
            case type():
                if not is_stateless_class(x):
                    self.instance(x, {}, x.__mro__, CLASS_ATTRIBUTES)
            case SimpleNamespace():
                self.instance(x, vars(x), (), CLASS_ATTRIBUTES)
            case _:
                self.instance(x, getattr(x, "__dict__", None), type(x).__mro__, INSTANCE_ATTRIBUTES)

    def name(self, where: Mapping[str, Any], name: str, *, held: bool = True) -> None:
        """Record a name of a namespace and its value."""
        value = where.get(name, MISSING)
        self.captured.names.append((where, name, value))
        self.value(value, held=held)

    def function(self, x: FunctionType, *, held: bool) -> None:
        """Record a Python function: its globals, closure and defaults."""
        if is_library_function(x):
            return
        names = names_in_code(x.__code__)
        if names.imports:
            raise Incomparable
        self.attributes |= names.attributes
        self.captured.functions.append((x, x.__code__, x.__defaults__, x.__kwdefaults__))
        for name in names.globals:
            self.name(x.__globals__, name, held=held)
            own = getattr(builtins, name, None)
            error = isinstance(own, type) and issubclass(own, BaseException)
            if name not in x.__globals__ and name not in PURE and not error:
                raise Incomparable
        for cell in x.__closure__ or ():
            value = cell_value(cell)
            self.captured.cells.append((cell, value))
            self.value(value, held=held)
        self.container(x.__defaults__ or (), held=held)
        self.container(x.__kwdefaults__ or {}, held=held)

    def container(self, x: Any, *, held: bool = True) -> None:
        """A list or the like, and what it holds."""
        items = tuple(container_items(x))
        named = isinstance(x, tuple) and hasattr(type(x), "_fields")
        if len(items) > MOST_CONTAINER_ITEMS or not (named or type(x) in (list, tuple, dict, set, frozenset)):
            raise Incomparable
        if not isinstance(x, tuple | frozenset):
            self.captured.containers.append((x, items))
        for item in items:
            self.value(item, held=held)

    def instance(self, x: Any, own: Any, classes: tuple[type, ...], allowed: set[str]) -> None:
        """A simple object or class: the attributes that the code asks for, as it and its classes have them."""
        classes = tuple(c for c in classes if c is not object)
        dunders = {name for c in classes for name in vars(c) if name.startswith("__") and name.endswith("__")}
        simple = type(own) is dict and all(type(c) is type for c in classes)
        if not simple or not dunders <= allowed:
            raise Incomparable
        has = {*own, *(name for c in classes for name in vars(c))}
        for name in (self.attributes & has) | ({"__call__"} & dunders):
            self.attribute(own, classes, name)

    def attribute(self, own: dict[str, Any], classes: tuple[type, ...], name: str) -> None:
        """Record one attribute where the lookup finds it, and the classes before that lack it."""
        value = MISSING
        for c in classes:
            value = vars(c).get(name, MISSING)
            self.captured.names.append((vars(c), name, value))
            if value is not MISSING:
                break
        if isinstance(value, property):
            self.value(value.fget)
        elif hasattr(type(value), "__set__"):
            raise Incomparable
        else:
            self.name(own, name)
            if name not in own:
                value = value.__func__ if isinstance(value, staticmethod | classmethod) else value
                if hasattr(type(value), "__get__") and not isinstance(value, FunctionType):
                    raise Incomparable
                self.value(value)


@dataclass(frozen=True)
class CodeNames:
    """The names that a function's code and its nested code use."""

    globals: frozenset[str]
    attributes: frozenset[str]
    imports: bool


@lru_cache(MOST_CODES)
def names_in_code(code: CodeType) -> CodeNames:
    """The names in a function's code."""
    found: dict[str, set[str]] = {"globals": set(), "attributes": set()}
    imports = False
    for instruction in dis.get_instructions(code):
        match instruction.opname:
            case "LOAD_GLOBAL" | "LOAD_NAME":
                found["globals"].add(str(instruction.argval))
            case "LOAD_ATTR" | "LOAD_METHOD" | "LOAD_SUPER_ATTR":
                found["attributes"].add(str(instruction.argval))
            case "IMPORT_NAME":
                imports = True
    inner = [names_in_code(c) for c in code.co_consts if isinstance(c, CodeType)]
    return CodeNames(
        frozenset(found["globals"]).union(*(x.globals for x in inner)),
        frozenset(found["attributes"]).union(*(x.attributes for x in inner)),
        imports or any(x.imports for x in inner),
    )


def cell_value(cell: CellType) -> Any:
    """The value in a closure's cell."""
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return MISSING


def container_items(container: Any) -> Iterable[Any]:
    """The items of a container, including a dict's keys."""
    return (x for pair in container.items() for x in pair) if isinstance(container, dict) else container


def is_stateless_class(x: type) -> bool:
    """Whether a class makes only numbers, errors or containers: no state to compare."""
    own = x.__module__.partition(".")[0] == "numpy" and not x.__module__.startswith("numpy.random")
    return own or issubclass(x, np.generic | BaseException) or getattr(builtins, x.__name__, None) is x


def is_library_function(x: FunctionType) -> bool:
    """Whether a function belongs to numpy or clearhead, whose names are not expected to change."""
    name = x.__module__ or ""
    ours = name.partition(".")[0] == __name__.partition(".")[0]
    return is_numpy_function(x) or (ours and x.__globals__ is getattr(sys.modules.get(name), "__dict__", None))


def is_numpy_function(x: FunctionType) -> bool:
    """Whether a function belongs to numpy, except numpy.random."""
    name = x.__module__ or ""
    return name.partition(".")[0] == "numpy" and not name.startswith("numpy.random")
