"""A function's parameters as a NamedTuple of typed values, which its callers fill in by name.

Decides how such a tuple becomes parameters of a machine function: pointers and 64-bit integers in the fields' order,
tuples within it one by one, and optional fields only where the function has them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

import llvmlite.ir as ir

from clearhead.kernels.ir.values import Pointer, Value

P = TypeVar("P", bound=tuple[Any, ...])


class Parameter(NamedTuple):
    """One parameter in the machine's terms."""

    name: str  # as IR shows it: pointers end in _p
    kind: type[Value]


@functools.cache
def flattened(parameters: type[tuple[Any, ...]]) -> tuple[tuple[str, type[Any], bool], ...]:
    """The fields of a NamedTuple: name, type, and whether it may be left out."""
    fields = []
    for name, hint in get_type_hints(parameters).items():
        options = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
        fields.append((name, options[0], len(get_args(hint)) > 1))
    return tuple(fields)


def machine_parameters(parameters: type[tuple[Any, ...]], present: frozenset[str]) -> list[Parameter]:
    """A NamedTuple's fields as parameters, tuples within it one by one; of optional fields those that are present."""
    result = []
    for name, kind, optional in flattened(parameters):
        if optional and name not in present:
            continue
        if issubclass(kind, Value):
            result.append(Parameter(f"{name}_p" if issubclass(kind, Pointer) else name, kind))
        else:
            result += machine_parameters(kind, present)
    return result


def bound(parameters: type[P], values: Iterator[Value], present: frozenset[str]) -> P:
    """The NamedTuple of a function's arguments, in the order of `machine_parameters`."""
    fields: dict[str, Any] = {}
    for name, kind, optional in flattened(parameters):
        if optional and name not in present:
            fields[name] = None
        else:
            fields[name] = next(values) if issubclass(kind, Value) else bound(kind, values, present)
    return parameters(**fields)


def operands(arguments: tuple[Any, ...]) -> Iterator[ir.Value]:
    """A call's arguments, tuples within it one by one; what is None is left out."""
    for x in arguments:
        if isinstance(x, tuple):
            yield from operands(x)
        elif x is not None:
            yield x.ir
