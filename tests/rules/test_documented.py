"""docs/functions.md lists what rules may use: every operation, every name that numpy and torch have for it."""

import re
from pathlib import Path

import numpy as np
import pytest

from clearhead.rules import compositions, functions, tracers
from clearhead.rules.expression import SYMBOLS
from clearhead.rules.operations import OPERATIONS

PAGE = Path(__file__).parents[2] / "docs/functions.md"
OPERATORS = SYMBOLS | {"neg": "-", "not": "~"}
WORDS = {"float": "float", "int": "whole number", "bool": "condition"}
PYTHONS = {
    "abs": ["abs()"], "int": ["math.floor()", "math.ceil()", "math.trunc()", "round()", ".astype(int)"],
    "float": [".astype(float)"], "where": ["np.where"],
}  # fmt: skip
NOT_TORCHS = ("and", "or", "xor", "not", "mod", "floordiv", "cbrt")  # the table's names that torch does not have
INTERNAL = ("threefry",)  # dropout's, which no rule can name


def torch_names(operation):
    """torch's names of an operation."""
    traced = pytest.importorskip("clearhead.adapters.torch.traced_functions")
    own = [operation] if operation in traced.FUNCTIONS else []
    names = own + [alias for alias, name in traced.ALIASES.items() if name == operation]
    names += {"int": [".long()", ".int()"], "float": [".float()", ".double()"]}.get(operation, [])
    return [name for name in names if name not in NOT_TORCHS]


def row(operation):
    """An operation's line in the table."""
    kinds = dict.fromkeys(
        " and ".join(dict.fromkeys(WORDS[kind] for kind in takes)) for takes, _ in OPERATIONS[operation].signatures
    )
    written = [OPERATORS[operation]] if operation in OPERATORS else []
    written += PYTHONS.get(operation, [])
    written += [f"np.{name}" for name, op in tracers.UFUNCS.items() if op == operation]
    if not written:
        meaning = OPERATIONS[operation].meaning
        written = [f"np.{meaning.__name__}" if isinstance(meaning, np.ufunc) else f"functions.{operation}"]
    cells = [f"`{operation}`", listed(written), listed(torch_names(operation)), ", ".join(kinds)]
    return "| " + " | ".join(cells) + " |"


def listed(names):
    """Names as code; | ends a table's cell."""
    return ", ".join("`" + name.replace("|", "\\|") + "`" for name in names) or "–"


def test_the_table_of_operations_is_the_page_s():
    wanted = [row(operation) for operation in OPERATIONS if operation not in INTERNAL]
    found = [line for line in PAGE.read_text().split("## What rules may use")[1].splitlines() if line.startswith("| `")]
    assert found == wanted, "\n".join(wanted)


def test_every_composition_is_named():
    traced = pytest.importorskip("clearhead.adapters.torch.traced_functions")
    text = PAGE.read_text()
    public = [name for name, x in vars(functions).items() if getattr(x, "__module__", "") == functions.__name__]
    names = {*compositions.UFUNCS, *compositions.FUNCTIONS, *public, *traced.FUNCTIONS} - {"apply_operation", "truediv"}
    words = set(re.findall(r"[a-z_0-9]+", text))
    assert sorted(name for name in names if name not in words) == []


def test_accuracies_are_within_the_table_s():
    lines = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", PAGE.read_text(), re.M)
    assert {name for name, *_ in lines} == {name for name, row in OPERATIONS.items() if not row.exact} | {"sqrt"}
    assert all(float(bound) <= OPERATIONS[name].ulp for name, *bounds in lines for bound in bounds)
