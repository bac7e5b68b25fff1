"""Expressions against plain Python numbers, one pair at a time; bounds against every pair of their ranges."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.rules.bounds import bounds
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula, depends, parts, renumber, substitute, unchanging
from clearhead.rules.operations import ROWS
from clearhead.rules.ranges import ranges as exact_ranges
from clearhead.rules.simplification import simplify

SCORE, BATCH, HEAD = Expression("score", "float"), Expression("batch", "int"), Expression("head", "int")
QUERY, KEY = Expression("query", "int"), Expression("key", "int")
# Stand-ins for exp and its like that are exact, so that bits can be compared.
EXACT = SimpleNamespace(exp=lambda x: x + x, log=lambda x: -x, tanh=lambda x: x * x, sigmoid=lambda x: x - x)


def fixed(array: Any) -> Any:
    return unchanging(np.array(array))


ARRAYS = (
    np.array([0.5, -0.0, np.inf, 0.1]),
    fixed([3, -2, 7, 0, 5]),
    fixed([True, False, False, True, True, True]),
    fixed([[True, True, False], [False, True, True], [True, True, True], [False, False, False]]),
    fixed(np.arange(12, dtype=np.int16).reshape(3, 4) % 7),
    np.array([True, False, True]),
)


def constant(value: Any) -> Expression:
    kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "float"
    return Expression("constant", kind, value=value)


def build(op: str, kind: Any, *args: Expression) -> Expression:
    return Expression(op, kind, args)


@st.composite
def expressions(draw: Any, kind: str, depth: int = 4) -> Expression:
    """A random expression of a kind; products of whole numbers stay small."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        leaf: dict[str, Any] = {
            "float": st.one_of(st.just(SCORE), st.sampled_from([0.0, -0.0, 1.0, -1.5, np.inf, np.nan]).map(constant)),
            "int": st.one_of(st.sampled_from([BATCH, HEAD, QUERY, KEY]), st.integers(-3, 5).map(constant)),
            "bool": st.booleans().map(constant),
        }
        return draw(leaf[kind])

    def part(of: str) -> Expression:
        return draw(expressions(of, depth - 1))

    shapes: dict[str, list[Callable[[], Expression]]] = {
        "float": [
            *(lambda op=op: build(op, "float", part("float"), part("float")) for op in ("add", "sub", "mul", "div")),
            *(lambda op=op: build(op, "float", part("float"), part("float")) for op in ("min", "max")),
            *(lambda op=op: build(op, "float", part("float")) for op in ("neg", "abs", "sqrt", "exp", "log", "tanh")),
            lambda: build("sigmoid", "float", part("float")),
            lambda: build("float", "float", part(draw(st.sampled_from(["int", "bool"])))),
            lambda: build("where", "float", part("bool"), part("float"), part("float")),
            lambda: Expression("load", "float", (part("int"),), array=0),
        ],
        "int": [
            *(lambda op=op: build(op, "int", part("int"), part("int")) for op in ("add", "sub", "min", "max")),
            *(lambda op=op: build(op, "int", part("int"), part("int")) for op in ("floordiv", "mod")),
            *(lambda op=op: build(op, "int", part("int")) for op in ("neg", "abs")),
            lambda: build("mul", "int", part("int"), constant(draw(st.integers(-3, 3)))),
            lambda: build("int", "int", part("bool")),
            lambda: build("where", "int", part("bool"), part("int"), part("int")),
            lambda: Expression("load", "int", (part("int"),), array=1),
            lambda: Expression("load", "int", (part("int"), part("int")), array=4),
        ],
        "bool": [
            *(lambda op=op: build(op, "bool", part("int"), part("int")) for op in ("lt", "le", "gt", "ge", "eq", "ne")),
            lambda: build(draw(st.sampled_from(["lt", "ge", "ne"])), "bool", part("float"), part("float")),
            lambda: build(draw(st.sampled_from(["eq", "ne"])), "bool", part("bool"), part("bool")),
            *(lambda op=op: build(op, "bool", part("bool"), part("bool")) for op in ("and", "or", "xor")),
            lambda: build("not", "bool", part("bool")),
            lambda: build("where", "bool", part("bool"), part("bool"), part("bool")),
            lambda: Expression("load", "bool", (part("int"),), array=draw(st.sampled_from([2, 5]))),
            lambda: Expression("load", "bool", (part("int"), part("int")), array=3),
        ],
    }
    return draw(st.sampled_from(shapes[kind]))()


def number(e: Expression, leaves: dict[str, Any], of: Any) -> Any:
    """The meaning of an expression for one pair: Python's whole numbers and truths, and floats of type `of`."""
    if e.op in leaves:
        return of(leaves[e.op]) if e.op == "score" else leaves[e.op]
    if e.op == "constant":
        return of(e.value) if e.kind == "float" else e.value
    args = [number(a, leaves, of) for a in e.args]
    a, b = (*args, None, None)[:2]
    match e.op:
        case "load":
            array = ARRAYS[e.array or 0]
            places = (min(max(x + n if x < 0 else x, 0), n - 1) for x, n in zip(args, array.shape, strict=True))
            element = array[tuple(places)].item()
            return of(element) if e.kind == "float" else element
        case "where":
            return args[1] if a else args[2]
        case "float":
            return of(a)
        case "int":
            return int(a)
        case "floordiv":
            return a // b if b else 0
        case "mod":
            return a % b if b else 0
        case "min":
            return a if a < b or a != a else b
        case "max":
            return a if a > b or a != a else b
        case "sqrt":
            return np.sqrt(a)
        case "exp" | "log" | "tanh" | "sigmoid":
            return getattr(EXACT, e.op)(a)
        case "not":
            return not a
    plain: dict[str, Callable[..., Any]] = {
        "add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b, "div": lambda: a / b, "neg": lambda: -a,
        "abs": lambda: abs(a), "lt": lambda: a < b, "le": lambda: a <= b, "gt": lambda: a > b, "ge": lambda: a >= b,
        "eq": lambda: a == b, "ne": lambda: a != b, "and": lambda: a and b, "or": lambda: a or b, "xor": lambda: a != b,
    }  # fmt: skip
    return plain[e.op]()


def grid(of: Any) -> dict[str, Any]:
    """Every pair of a small problem, and scores among which are all special numbers."""
    scores = np.resize(np.array([0.1, -0.0, np.inf, -np.inf, np.nan, 3.7, -1e30], of), (2, 2, 3, 5))
    return {
        "score": scores, "batch": np.arange(2)[:, None, None, None], "head": np.arange(2)[:, None, None],
        "query": np.arange(3)[:, None] + 2, "key": np.arange(5),
    }  # fmt: skip


def same_bits(a: Any, b: Any) -> bool:
    """Equal to the sign of 0; any not-a-number equals any other."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.dtype.kind != "f":
        return a.dtype == b.dtype and bool(np.all(a == b))
    return bool(np.all((np.isnan(a) & np.isnan(b)) | ((a == b) & (np.signbit(a) == np.signbit(b)))))


KINDS = st.sampled_from(["float", "int", "bool"])
FLOATS = st.sampled_from([np.float32, np.float64])


@settings(max_examples=150, deadline=None)
@given(KINDS.flatmap(expressions), FLOATS)
def test_every_pair_has_the_value_of_plain_numbers(e: Expression, of: Any) -> None:
    leaves = grid(of)
    found = evaluate(Formula(e, ARRAYS), leaves, EXACT)
    every = np.broadcast_arrays(found, *leaves.values())
    with np.errstate(all="ignore"):
        for value, *point in zip(*(x.ravel() for x in every), strict=True):
            pair = {name: x if name == "score" else int(x) for name, x in zip(leaves, point, strict=True)}
            assert same_bits(value, np.asarray(number(e, pair, of), found.dtype)), (e, pair)
    assert found.dtype == {"float": of, "int": np.int64, "bool": np.bool_}[e.kind]


@settings(max_examples=150, deadline=None)
@given(KINDS.flatmap(expressions), FLOATS)
def test_simplify_keeps_bits_and_never_adds(e: Expression, of: Any) -> None:
    leaves, simple = grid(of), simplify(e)
    before, after = (np.broadcast_to(evaluate(Formula(x, ARRAYS), leaves, EXACT), (2, 2, 3, 5)) for x in (e, simple))
    assert same_bits(before, after)
    assert simple.size <= e.size
    assert simple.kind == e.kind
    assert depends(simple) <= depends(e)


@pytest.mark.parametrize(
    ("e", "simple"),
    [
        (build("mul", "float", SCORE, constant(1.0)), SCORE),
        (build("mul", "float", constant(1.0), SCORE), SCORE),
        (build("div", "float", SCORE, constant(1.0)), SCORE),
        (build("sub", "float", SCORE, constant(0.0)), SCORE),
        (build("add", "int", constant(0), KEY), KEY),
        (build("neg", "float", build("neg", "float", SCORE)), SCORE),
        (build("where", "float", constant(False), SCORE, constant(2.0)), constant(2.0)),
        (build("floordiv", "int", constant(-7), constant(2)), constant(-4)),
        (build("float", "float", build("add", "int", constant(2), constant(3))), constant(5.0)),
        (build("mul", "int", KEY, build("sub", "int", constant(3), constant(2))), KEY),
    ],
)
def test_simplify_leaves_out_what_changes_nothing(e: Expression, simple: Expression) -> None:
    assert simplify(e) == simple


@pytest.mark.parametrize(
    "e",
    [
        build("add", "float", SCORE, constant(0.0)),  # −0.0 + 0.0 is 0.0
        build("sub", "float", SCORE, constant(-0.0)),
        build("mul", "float", SCORE, constant(0.0)),
        build("mul", "float", constant(0.1), constant(0.2)),  # rounds in the computation's dtype, not here
        Expression("load", "int", (constant(1),), array=1),  # arrays may change between calls
    ],
)
def test_simplify_keeps_what_may_round_or_change(e: Expression) -> None:
    assert simplify(e) == e


@given(KINDS.flatmap(expressions))
def test_depends_names_the_leaves(e: Expression) -> None:
    def leaves(x: Expression) -> set[str]:
        return set().union(*map(leaves, x.args)) if x.args else {x.op} - {"constant"}

    assert depends(e) == leaves(e)


@given(KINDS.flatmap(expressions))
def test_parts_come_once_and_after_their_arguments(e: Expression) -> None:
    found = list(parts(e))
    assert len(set(found)) == len(found)
    assert found[-1] == e
    assert all(found.index(a) < n for n, part in enumerate(found) for a in part.args)


def test_kinds_and_numbers_that_are_equal_in_python_differ() -> None:
    numbers = [constant(x) for x in (0, 0.0, -0.0, False, 1, 1.0, True)]
    assert len(set(numbers)) == 7
    assert len(set(map(repr, numbers))) == 7
    assert constant(float("nan")) == constant(float("nan"))
    assert Expression("load", "int", (KEY,), array=0) != Expression("load", "float", (KEY,), array=0)


def test_written_as_one_would_type_it() -> None:
    distance = build("float", "float", build("sub", "int", KEY, QUERY))
    bias = build("mul", "float", Expression("load", "float", (HEAD,), array=0), distance)
    assert repr(build("add", "float", SCORE, bias)) == "(score + (a0[head] * float((key - query))))"


def chain(first: Expression, length: int) -> Expression:
    """((first + key) + key) + …, which is deep."""
    for _ in range(length):
        first = build("add", "int", first, KEY)
    return first


def test_long_expressions_are_short_text_that_still_tells_them_apart() -> None:
    """A kernel in the cache is found by this text."""
    a, b = chain(KEY, 1000), chain(QUERY, 1000)
    assert repr(a) != repr(b)
    assert len(repr(a)) < 10_000
    assert repr(a) == repr(chain(KEY, 1000))


def test_deep_expressions_are_calculated() -> None:
    deep = chain(QUERY, 5000)
    assert evaluate(Formula(simplify(deep)), {"query": 7, "key": 3}) == 7 + 5000 * 3


def test_shared_parts_are_calculated_once() -> None:
    calls = []
    functions = SimpleNamespace(exp=lambda x: calls.append(1) or x)
    e = build("exp", "float", SCORE)
    for _ in range(60):  # written out: 2⁶⁰ operations
        e = build("add", "float", e, e)
    found = evaluate(Formula(simplify(e)), {"score": np.array([0.5, 2.0])}, functions)
    assert found.tolist() == [0.5 * 2.0**60, 2.0**61]
    assert len(calls) == 1


def test_the_score_decides_the_dtype() -> None:
    e = build("mul", "float", SCORE, constant(0.1))
    leaf = np.array([3.0], np.float32)
    assert same_bits(evaluate(Formula(e), {"score": leaf}), leaf * np.float32(0.1))
    table = Formula(Expression("load", "float", (KEY,), array=0), (np.array([0.1]),))
    assert same_bits(evaluate(table, {"key": np.array([0])}, dtype=np.float32), np.array([0.1], np.float32))


def test_functions_default_to_numpys() -> None:
    x = np.array([-800.0, -1.0, 0.0, 2.0, 800.0])
    for op, wanted in {"tanh": np.tanh(x), "sigmoid": [0.0, 1 / (1 + np.e), 0.5, 1 / (1 + np.exp(-2)), 1.0]}.items():
        np.testing.assert_allclose(evaluate(Formula(build(op, "float", SCORE)), {"score": x}), wanted, rtol=1e-15)


def test_an_index_counts_from_the_end_once_and_stays_inside() -> None:
    e = Expression("load", "int", (KEY,), array=0)
    found = evaluate(Formula(e, (np.array([10, 11, 12]),)), {"key": np.array([-9, -4, -3, -1, 0, 2, 3, 99])})
    assert found.tolist() == [10, 10, 10, 12, 10, 12, 12, 12]


def test_rules_follow_each_other_with_their_own_arrays() -> None:
    a, b = np.array([1.0, 2.0]), np.array([10.0, 20.0])
    plus = build("add", "float", SCORE, Expression("load", "float", (KEY,), array=0))
    times = build("mul", "float", SCORE, Expression("load", "float", (KEY,), array=0))
    both = Formula(times, (b,)).after(Formula(plus, (a,)))
    assert evaluate(both, {"score": np.array([5.0, 5.0]), "key": np.arange(2)}).tolist() == [60.0, 140.0]
    assert repr(renumber(plus, 3)) == "(score + a3[key])"
    assert substitute(plus, SCORE) == plus


def test_conditions_are_joined_with_their_own_arrays() -> None:
    table = Expression("load", "bool", (KEY,), array=0)
    a, b = Formula(table, (np.array([True, True, False]),)), Formula(table, (np.array([True, False, False]),))
    leaves = {"key": np.arange(3)}
    assert evaluate(a.combine("and", b), leaves).tolist() == [True, False, False]
    assert evaluate(b.combine("or", a), leaves).tolist() == [True, True, False]
    assert evaluate(a.combine("not"), leaves).tolist() == [False, False, True]


RANGE = st.tuples(st.integers(-4, 8), st.integers(0, 4)).map(lambda x: (x[0], x[0] + x[1]))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["int", "bool", "bool"]).flatmap(expressions),
    st.lists(st.tuples(RANGE, RANGE), min_size=1, max_size=3),
    st.integers(0, 2),
)
def test_bounds_hold_for_every_pair(e: Expression, blocks: list[Any], head: int) -> None:
    """Blocks of positions in an array, as kernels ask for them."""
    low, high = (
        {name: np.array([block[n][end] for block in blocks]) for n, name in enumerate(("query", "key"))}
        for end in (0, 1)
    )
    ranges = {name: (low[name], high[name]) for name in low}
    ranges |= {"head": (np.array(head), np.array(head)), "batch": (np.array(0), np.array(1))}
    least, most = (np.broadcast_to(x, len(blocks)) for x in bounds(Formula(e, ARRAYS), ranges))
    for n in range(len(blocks)):
        corners = [range(low[name][n], high[name][n] + 1) for name in ("query", "key")]
        query, key, batch, score = map(np.array, zip(*itertools.product(*corners, (0, 1), (0.5, np.nan)), strict=True))
        leaves = {"query": query, "key": key, "batch": batch, "head": np.array(head), "score": score}
        found = evaluate(Formula(e, ARRAYS), leaves, EXACT)
        assert np.all(least[n] <= found), e
        assert np.all(found <= most[n]), e


PARTS = {
    "int": (QUERY, KEY, build("sub", "int", QUERY, KEY), KEY),
    "bool": tuple(build("gt", "bool", x, constant(n)) for x, n in ((QUERY, 0), (KEY, 1), (KEY, -2))),
}
ONE_OPERATION = [
    *(
        build(row.name, gives, *(PARTS[kind][n] for n, kind in enumerate(takes)))
        for row in ROWS
        for takes, gives in row.signatures
        if "float" not in (*takes, gives)
    ),
    *(build(op, "int", QUERY, constant(n)) for op in ("floordiv", "mod") for n in (-2, 0, 1, 2, 3)),
    *(Expression("load", "int", (QUERY,), array=n) for n in (1, 2, 5)),
    *(Expression("load", "int", (QUERY, KEY), array=n) for n in (3, 4)),
]


@pytest.mark.parametrize("e", ONE_OPERATION, ids=repr)
def test_bounds_of_one_operation_hold_for_every_range(e: Expression) -> None:
    numbers = np.arange(-4, 6)
    table = evaluate(Formula(e, ARRAYS), {"query": numbers[:, None], "key": numbers})
    table = np.broadcast_to(table, (len(numbers), len(numbers)))
    low, high = np.array([(a, b) for a in range(len(numbers)) for b in range(a, len(numbers))]).T
    ranges = {"query": (numbers[low][:, None], numbers[high][:, None]), "key": (numbers[low], numbers[high])}
    least, most = (np.broadcast_to(x, (len(low), len(low))) for x in bounds(Formula(e, ARRAYS), ranges))
    for q, k in ((0, 0), (7, 20), (12, 3), (30, 41)) if e.kind == "int" and e.op != "load" else ():
        known = {x: (int(numbers[low[n]]), int(numbers[high[n]])) for x, n in ((QUERY, q), (KEY, k))}
        box = table[low[q] : high[q] + 1, low[k] : high[k] + 1]
        first, last = exact_ranges(Formula(e, ARRAYS), known)[e]
        assert first <= box.min() <= box.max() <= last
    for q, k in np.ndindex(least.shape):
        box = table[low[q] : high[q] + 1, low[k] : high[k] + 1]
        assert least[q, k] <= box.min()
        assert box.max() <= most[q, k]


def test_bounds_know_nothing_of_arrays_that_may_change() -> None:
    e, here = Expression("load", "bool", (KEY,), array=0), {"key": (np.array([0]), np.array([0]))}
    locked = np.array([True])
    locked.flags.writeable = False  # which its owner can take back
    for array, known in ((fixed([True]), (True, True)), (np.array([True]), (False, True)), (locked, (False, True))):
        surely, perhaps = bounds(Formula(e, (array,)), here)
        assert (bool(np.all(surely)), bool(np.all(perhaps))) == known


@pytest.mark.parametrize("array", [2, 3])
def test_bounds_of_tables_of_truth_are_exact(array: int) -> None:
    """Whether any and whether all of a box is True is known, not guessed."""
    table = ARRAYS[array]
    e = Expression("load", "bool", (QUERY, KEY)[: table.ndim], array=array)
    spans = [[(a, b) for a in range(n) for b in range(a, n)] for n in (*table.shape, 1)[:2]]
    for (q0, q1), (k0, k1) in itertools.product(*spans):
        box = table[q0 : q1 + 1, k0 : k1 + 1] if table.ndim == 2 else table[q0 : q1 + 1]
        ranges = {"query": (np.array([q0]), np.array([q1])), "key": (np.array([k0]), np.array([k1]))}
        surely, perhaps = bounds(Formula(e, ARRAYS), ranges)
        assert (bool(surely[0]), bool(perhaps[0])) == (bool(box.all()), bool(box.any()))
