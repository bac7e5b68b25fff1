"""Traced functions against the same functions called with numpy's arrays; and every error, with the line it names."""

import math
import random
import re
from collections.abc import Callable
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clearhead
from clearhead.errors import InputError, TraceError
from clearhead.rules import functions
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import depends
from clearhead.rules.trace import trace

NAMES = ("score", "batch", "head", "query", "key")
POSITIONS = NAMES[1:]
LEAVES = {
    "score": np.linspace(-3, 3, 2 * 3 * 5 * 7).reshape(2, 3, 5, 7),
    "batch": np.arange(2)[:, None, None, None],
    "head": np.arange(3)[:, None, None],
    "query": np.arange(5)[:, None] + 2,
    "key": np.arange(7),
}
SLOPES = np.array([0.5, 0.25, 0.125])
HALF = SLOPES.astype(np.float16)
TABLE = np.arange(21, dtype=np.int32).reshape(3, 7) % 5
SEEN = np.arange(49).reshape(7, 7) % 3 > 0
IDS = np.array([0, 0, 0, 1, 1, 2, 2], np.uint8)
LIMIT = np.array(4)
COMPLEX, OBJECTS, MASKED, EMPTY = np.ones(3, complex), np.ones(3, object), np.ma.ones(3), np.ones(0)
NESTED = {"slopes": SLOPES}
COUNT = 0


def helper(head: Any) -> Any:
    return SLOPES[head] * 2


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args) * 2

    return wrapper


def returned(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that names itself, which a copy must survive."""

    def inner(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        assert callable(inner)
        return function(score, head)

    return inner


@twice
def decorated(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + helper(head)


def with_defaults(score: Any, batch: Any, head: Any, query: Any, key: Any, table: Any = TABLE, *, h: Any = HALF) -> Any:
    return score + table[head, key] * h[head]


def with_steps(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    for n in range(3):
        score = score + SLOPES[n] * (key % (n + 1))
    near = abs(query - key) < LIMIT
    return np.where(near & (IDS[key] == 0), score, score - 1)


def with_inner(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    total = score

    def add(x: Any) -> None:
        nonlocal total  # its own function's, which is no side effect
        total = total + x * SLOPES[head]

    add(key)
    add(query)
    return total


def bound(slopes: Any, score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + slopes[head]


SCORES: list[Callable[..., Any]] = [
    lambda score, batch, head, query, key: score,
    lambda score, batch, head, query, key: 2 * score - key / (query + 1) + batch,
    lambda score, batch, head, query, key: score + SLOPES[head] * (key - query),
    lambda score, batch, head, query, key: 50.0 * np.tanh(score / 50),
    lambda score, batch, head, query, key: score**3 + np.square(score) + np.power(score, 1) + key**2,
    lambda score, batch, head, query, key: np.where(key <= query, score, -np.inf),
    lambda score, batch, head, query, key: np.clip(score, -1, 1) + np.clip(key - query, -2, 2),
    lambda score, batch, head, query, key: np.minimum(score, 0.5) + np.maximum(key, 3) + np.fmin(key, 2),
    lambda score, batch, head, query, key: score + np.left_shift(key, 2) - np.right_shift(key - query, 1),
    lambda score, batch, head, query, key: -abs(score) + np.fabs(score) * np.float32(0.1) + np.sign(score),
    lambda score, batch, head, query, key: np.exp(score) + np.log(np.abs(score) + 1) + np.sqrt(key),
    lambda score, batch, head, query, key: score * (key > query) + (key > query) * (head == 1),
    lambda score, batch, head, query, key: np.add(score, np.multiply(key, np.subtract(query, 1))) / np.float64(3),
    lambda score, batch, head, query, key: score + key // 2 % 3 + np.floor_divide(key, query) + np.remainder(query, 3),
    lambda score, batch, head, query, key: score + 7 // (key - 3) + 7 % (key - 3) + (-key) // 2 + (-key) % 3,
    lambda score, batch, head, query, key: score + TABLE[head, key] - TABLE[-1, key] + TABLE[head, -2],
    lambda score, batch, head, query, key: score + TABLE[0][key] + TABLE[:, 1][head] + (SLOPES * 2)[head] + LIMIT,
    lambda score, batch, head, query, key: score + np.exp(-SLOPES)[head] + TABLE.T[key, head] + IDS.max() - len(IDS),
    lambda score, batch, head, query, key: score + SLOPES[TABLE[head, key] % 3],
    lambda score, batch, head, query, key: score + helper(head) + sum(SLOPES) + SLOPES[TABLE[0, 1]],
    lambda score, batch, head, query, key: np.positive(score) + (+key) + np.negative(key) + np.sign(key - 3),
    lambda score, batch, head, query, key: functions.where(key > 2, functions.exp(score), functions.tanh(score)),
    lambda score, batch, head, query, key: functions.log(functions.sqrt(key + 1)) + functions.sigmoid(score),
    lambda score, batch, head, query, key: functions.minimum(functions.maximum(score, -1), functions.sigmoid(key)),
    lambda s, b, h, q, k: np.floor(s) + np.ceil(s) * 2 + np.rint(s) * 4 - np.trunc(s),
    lambda s, b, h, q, k: np.round(s, 1) + np.round(s * 9, decimals=-1) + np.fix(s),
    lambda s, b, h, q, k: np.sin(s) + np.cos(k) * np.tan(s) + np.arctan2(s, k - 3),
    lambda s, b, h, q, k: np.arcsin(s / 3) + np.arccos(s / 3) + np.arctan(s),
    lambda s, b, h, q, k: np.cbrt(s) + np.cbrt(k - 3) * np.sinc(s) + np.sinc(k) + np.sinc((k - 3) / 99),
    lambda s, b, h, q, k: np.sinh(s) + np.cosh(s) + np.expm1(s) + np.log1p(k) + s,
    lambda s, b, h, q, k: np.exp2(s) + np.log2(k + 1) + np.log10(q + 1),
    lambda s, b, h, q, k: s // 0.7 + s % 0.7 + np.fmod(s, -0.7) + np.remainder(s, -0.7),
    lambda s, b, h, q, k: (k - 3) // -2 + (k - 3) % -2 + np.fmod(k - 3, -2) + np.fmod(3, q),
    lambda s, b, h, q, k: sum(np.divmod(s, 0.7)) + sum(divmod(k - 3, 2)) + np.copysign(2, s),
    lambda s, b, h, q, k: abs(s) ** 0.5 + abs(s) ** -0.5 + s**-2 + s**0 + s**3.0,
    lambda s, b, h, q, k: abs(s) ** 1.7 + 2.0**k + 1.5**s + abs(s) ** k + s**9,
    lambda s, b, h, q, k: np.power(s, 2) + np.float_power(k, 2.5) + (k + 1.0) ** -1 + k**11,
    lambda s, b, h, q, k: np.isnan(np.sqrt(s)) + np.isfinite(1 / (k - 3)) * 2.0 + np.signbit(s),
    lambda s, b, h, q, k: np.isinf(1 / (k - 3)) * np.logical_and(k, q - 3) + np.reciprocal(s),
    lambda s, b, h, q, k: np.logical_or(k, 0) + 2.0 * np.logical_xor(k, s) * ~np.logical_not(k),
    lambda s, b, h, q, k: np.clip(s, None, 1) + np.clip(s, a_min=-1, a_max=None) + np.floor(k),
    lambda s, b, h, q, k: functions.gelu(s) + functions.silu(s) + functions.softplus(s),
    lambda s, b, h, q, k: functions.erf(s) - functions.erfc(s) + functions.relu(s),
    lambda s, b, h, q, k: functions.cbrt(s) - functions.sinc(s),
    decorated,
    with_defaults,
    with_steps,
    with_inner,
    returned(lambda score, head: score - SLOPES[head]),
    partial(bound, SLOPES),
    partial(partial(bound, SLOPES)),
    partial(lambda *args, slopes: bound(slopes, *args), slopes=SLOPES),
]
MASKS: list[Callable[..., Any]] = [
    lambda batch, head, query, key: key <= query,
    lambda batch, head, query, key: (query - key < 3) & ~(key == 4) | (batch != 1) ^ (head >= 1),
    lambda batch, head, query, key: IDS[query] == IDS[key],
    lambda batch, head, query, key: SEEN[query, key] | SEEN[key, query],
    lambda batch, head, query, key: np.logical_or(np.less(key, 2), np.logical_and(key > 3, np.invert(SEEN[0, key]))),
    lambda batch, head, query, key: np.where(SEEN[query, key], key > 2, query > 3),
    lambda batch, head, query, key: (SEEN[query, key] == (key > 2)) != np.equal(key, query),
    lambda batch, head, query, key: np.logical_xor(np.greater(key, 2), np.logical_not(np.greater_equal(query, key))),
    lambda batch, head, query, key: (~SEEN)[query, key] & (IDS > 0)[key] & (query < 5),
    lambda batch, head, query, key: key * 1.5 <= query,
    lambda batch, head, query, key: SEEN[np.where((key > 0) & False, key, 2), key],
]


@pytest.mark.parametrize("function", SCORES)
def test_a_score_rule_is_what_numpy_calculates(function: Callable[..., Any]) -> None:
    with np.errstate(all="ignore"):
        wanted = np.asarray(function(*LEAVES.values()), float)
    found = evaluate(trace(function, NAMES), LEAVES)
    np.testing.assert_allclose(np.broadcast_to(found, wanted.shape), wanted, rtol=1e-14, atol=0)


@pytest.mark.parametrize("function", MASKS)
def test_a_mask_is_what_numpy_calculates(function: Callable[..., Any]) -> None:
    wanted = function(*(LEAVES[name] for name in POSITIONS))
    formula = trace(function, POSITIONS)
    assert formula.expression.kind == "bool"
    assert wanted.dtype == np.bool_
    assert 0 < wanted.mean() < 1
    assert np.array_equal(np.broadcast_to(evaluate(formula, LEAVES), wanted.shape), wanted)


def rules() -> Any:
    """Random rules, made of rules, each capturing others."""
    floats: list[Callable[..., Any]] = [
        lambda score, batch, head, query, key: score,
        lambda score, batch, head, query, key: SLOPES[head],
        lambda score, batch, head, query, key: key - query,
        lambda score, batch, head, query, key: TABLE[head, key] * 0.5,
        lambda score, batch, head, query, key: 3,
    ]
    pairs: list[Callable[[Any, Any], Any]] = [
        lambda a, b: a + b,
        lambda a, b: a * b - 1,
        lambda a, b: a / (abs(b) + 1),
        lambda a, b: np.where(a > b, a, -b),
        lambda a, b: np.minimum(a, np.maximum(b, 0.25)),
        lambda a, b: (a <= b) * a,
    ]

    def joined(op: Callable[[Any, Any], Any], a: Callable[..., Any], b: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: op(a(*args), b(*args))

    return st.recursive(
        st.sampled_from(floats), lambda x: st.builds(joined, st.sampled_from(pairs), x, x), max_leaves=8
    )


@settings(max_examples=60, deadline=None)
@given(rules())
def test_random_rules_are_what_numpy_calculates(function: Callable[..., Any]) -> None:
    wanted = np.asarray(function(*LEAVES.values()))
    found = evaluate(trace(function, NAMES), LEAVES)
    assert np.array_equal(np.broadcast_to(found, wanted.shape), wanted)


def test_arrays_are_read_in_place_and_named_once() -> None:
    def rule(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        return score + SLOPES[head] * SLOPES[2 - head] + TABLE[0][key]

    formula = trace(rule, NAMES)
    assert len(formula.arrays) == 2
    assert formula.arrays[0] is SLOPES
    assert np.shares_memory(formula.arrays[1], TABLE)
    assert depends(formula.expression) == {"score", "head", "key"}


def test_tracing_leaves_the_function_and_its_arrays_alone() -> None:
    before = SLOPES.tobytes(), with_defaults.__defaults__
    trace(with_defaults, NAMES)
    assert (SLOPES.tobytes(), with_defaults.__defaults__) == before
    assert globals()["SLOPES"] is SLOPES


def test_whole_numbers_become_floats_only_where_floats_are() -> None:
    assert trace(lambda batch, head, query, key: key // 2 + 1, POSITIONS).expression.kind == "int"
    assert trace(lambda batch, head, query, key: key / 2, POSITIONS).expression.kind == "float"
    assert repr(trace(lambda score, batch, head, query, key: score * 2, NAMES).expression) == "(score * 2.0)"
    assert repr(trace(lambda batch, head, query, key: True, POSITIONS).expression) == "True"


def test_functions_keep_the_dtype_of_arrays() -> None:
    x = np.array([-700.0, 0.0, 50.0], np.float32)
    assert functions.sigmoid(x).dtype == np.float32
    np.testing.assert_allclose(functions.sigmoid(x), [0, 0.5, 1], atol=1e-30)
    assert functions.sigmoid(3).dtype == np.float64


# Every line that ends in `# here` must be named by the error, with the words beside it in the table.


def branch(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    if score > 0:  # here
        return score
    return -score


def both_conditions(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return np.where(key > 1 and key < 3, score, 0)  # here


def negated(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return np.where(not key > 1, score, 0)  # here


def builtin_max(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return max(score, 0)  # here


def member(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score * (key in (1, 2))  # here


def as_bool(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return bool(score)  # here


def as_int(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return int(score)  # here


def as_float(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return float(score)  # here


def math_exp(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return math.exp(score)  # here


def rounded(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return round(score, 2)  # here


def loop(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return sum(x for x in score)  # here


def count_up(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return sum(range(key))  # here


def stores(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    SLOPES[0] = score  # here
    return score


def stores_at(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    TABLE[head, key] = 1  # here
    return score


def adds_in_place(score: Any, batch: Any, head: Any, query: Any, key: Any, slopes: Any = SLOPES) -> Any:
    slopes += 1  # here
    return score


def writes_out(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    np.exp(SLOPES, out=SLOPES)  # here
    return score


def global_name(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    global COUNT
    COUNT += 1  # here
    return score


def inner_global(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    def count() -> None:
        global COUNT
        COUNT += 1  # here

    count()
    return score


def nonlocal_name() -> Callable[..., Any]:
    last = None

    def rule(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        nonlocal last
        last = score  # here
        return score

    return rule


def gives_nothing(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:  # here
    score + 1


def gives_two(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:  # here
    return score, key


def gives_array(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:  # here
    return SLOPES


def too_few(query: Any, key: Any) -> Any:  # here
    return key


def fails(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + {}["missing"]  # here


def fails_inside(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    def deeper(x: Any) -> Any:
        return x.shape  # here

    return deeper(score)


def raises_input_error(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    raise InputError("mine")  # here


def too_few_indices(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + TABLE[head]  # here


def slice_index(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + TABLE[head, :]  # here


def float_index(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + SLOPES[score]  # here


def complex_array(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + COMPLEX[head]  # here


def object_array(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + OBJECTS[head]  # here


def masked_array(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + MASKED[head]  # here


def empty_array(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + EMPTY[head]  # here


def whole_array(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + SLOPES  # here


def list_index(score: Any, batch: Any, head: Any, query: Any, key: Any, table: Any = (1, 2, 3)) -> Any:
    return score + table[head]  # here


def held_array(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + NESTED["slopes"][head]  # here


def made_array(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + np.array([1, 2, 3])[head]  # here


def stacked(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return np.array([score, score])  # here


def power_of_two(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + 2**key  # here


def power_beyond(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + key**65  # here


def whole_reciprocal(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return np.reciprocal(key)  # here


def narrowed(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score.astype(np.int8)  # here


def optional(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return np.clip(score, 0, 1, casting="safe")  # here


def unknown_ufunc(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return np.arcsinh(score)  # here


def unknown_function(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return np.median(score)  # here


def reduced(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return np.add.reduce(score)  # here


def joined_numbers(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return np.where(score & (key > 1), score, 0)  # here


def chosen_by_number(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return np.where(key, score, 0)  # here


def added_conditions(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score * ((key > 1) + (key > 2))  # here


def huge(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + key * 2**63  # here


def endless(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:  # here
    for _ in range(3000):
        score = score * 0.5 + key
    return score


def random_number(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:  # here
    return score + random.random()  # noqa: S311


def random_array(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:  # here
    return score + (SLOPES * random.random())[head]  # noqa: S311


ERRORS: list[tuple[Callable[..., Any], str]] = [
    (branch, "np.where"),
    (both_conditions, "&"),
    (negated, "~"),
    (builtin_max, "np.maximum"),
    (member, "np.where"),
    (as_bool, "np.where"),
    (as_int, "int()"),
    (as_float, "float()"),
    (math_exp, "np.exp"),
    (rounded, "use np.round"),
    (loop, "looped over"),
    (count_up, "range()"),
    (stores, "cannot store"),
    (stores_at, "cannot store"),
    (adds_in_place, "cannot store"),
    (writes_out, "cannot store"),
    (global_name, "cannot store"),
    (inner_global, "cannot store"),
    (nonlocal_name(), "cannot store"),
    (partial(global_name), "cannot store"),
    (gives_nothing, "gives None back"),
    (gives_two, "gives a value of type tuple back"),
    (gives_array, "gives a value of type ndarray back"),
    (too_few, "function(score, batch, head, query, key)"),
    (fails, "KeyError: 'missing'"),
    (fails_inside, "no attribute 'shape'"),
    (raises_input_error, "mine"),
    (too_few_indices, "needs 2 positions"),
    (slice_index, "needs 2 positions"),
    (float_index, "not a whole number"),
    (complex_array, "complex128"),
    (object_array, "object"),
    (masked_array, "MaskedArray"),
    (empty_array, "empty"),
    (whole_array, "array[head]"),
    (list_index, "only a numpy array"),
    (held_array, "a name of its own"),
    (made_array, "make it outside"),
    (stacked, "cannot be put into an array"),
    (power_of_two, "2.0 ** key"),
    (power_beyond, "does not fit into 64 bits"),
    (whole_reciprocal, "write 1 / x"),
    (narrowed, "int32"),
    (optional, "leave its other options out"),
    (unknown_ufunc, "np.arcsinh cannot be traced"),
    (unknown_function, "np.median cannot be traced: use np.around, np.clip, np.fix, np.round, np.sinc, np.where"),
    (reduced, "np.add"),
    (joined_numbers, "score is a number"),
    (chosen_by_number, "key is a number"),
    (added_conditions, "use |"),
    (huge, "64 bits"),
    (endless, "200"),
    (random_number, "random"),
    (random_array, "random"),
]


@pytest.mark.parametrize(("function", "words"), ERRORS)
def test_an_error_names_file_line_and_what_to_write(function: Callable[..., Any], words: str) -> None:
    with pytest.raises(TraceError) as caught:
        trace(function, NAMES)
    message = str(caught.value)
    assert words in message
    assert f"{__file__}, line " in message
    assert "# here" in message  # the text of the line
    assert isinstance(caught.value, InputError)
    assert COUNT == 0


X = np.ones((3, 4))


def test_what_is_no_function_is_told() -> None:
    with pytest.raises(TraceError, match=r"^3: TypeError: 'int' object is not callable"):
        trace(3, NAMES)
    with pytest.raises(InputError, match=r"^where\(3\) is not given a function"):
        clearhead.where(3)
    with pytest.raises(
        InputError, match=r"^where\(causal\(\)\) is given a mask: use that without where, as mask=causal\(\)\."
    ):
        clearhead.where(clearhead.causal())
    with pytest.raises(InputError, match=r"mask is <function .*, which is not a mask: use clearhead.where\(function\)"):
        clearhead.attention(X, X, X, mask=lambda batch, head, query, key: key <= query)


def number(batch: Any, head: Any, query: Any, key: Any) -> Any:  # here
    return query - key


def condition(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:  # here
    return key <= query


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clearhead.where(number), "gives numbers, not conditions"),
        (
            lambda: clearhead.attention(X, X, X, score=condition),
            "gives a condition, not a score",
        ),
    ],
)
def test_what_a_rule_gives_is_told_with_its_line(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(TraceError, match=rf"{re.escape(__file__)}, line \d+, .*# here`\) {words}"):
        call()


def test_an_array_of_an_object_is_told() -> None:
    """A method's arrays are reached through an object, which cannot be seen through."""
    holder = SimpleNamespace(slopes=SLOPES)
    with pytest.raises(TraceError, match="name of its own"):
        trace(lambda score, batch, head, query, key: score + holder.slopes[head], NAMES)
