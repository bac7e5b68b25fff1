"""The table of operations: that everything with operations knows all of them, and what the exact ones give."""

import math

import numpy as np
import pytest

from clearhead import attend, functions, where
from clearhead.definition.elementary import Functions
from clearhead.errors import TraceError
from clearhead.kernels.ir.operations import EMITTERS
from clearhead.machine.target import native_isas
from clearhead.rules import compositions, tracers
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import LEAVES, SYMBOLS, Expression, Formula
from clearhead.rules.operations import KIND_RANK, OPERATIONS, ROWS
from clearhead.rules.scores import SCORE_PARAMETERS
from clearhead.rules.trace import trace
from clearhead.testing import using_isa
from tests.kernels.combinations import in_turns, isas_and_dtypes
from tests.rules.compiled import run

BACK_ENDS = {
    "machine code": EMITTERS,
    "the scalar programs": vars(Functions).keys() | {name for name, row in OPERATIONS.items() if row.exact},
}


def missing(back_end):
    """The rows that a back end does not know."""
    return sorted(OPERATIONS.keys() - set(back_end))


@pytest.mark.parametrize("name", BACK_ENDS)
def test_every_back_end_knows_every_operation_and_no_other(name):
    assert missing(BACK_ENDS[name]) == []
    assert name != "machine code" or set(EMITTERS) == set(OPERATIONS)


def test_torch_knows_every_operation():
    pytest.importorskip("torch")
    from clearhead.adapters.torch.reference import FORMULAS
    from clearhead.adapters.torch.traced_functions import FUNCTIONS

    assert set(FORMULAS) == set(OPERATIONS)
    assert missing({*FUNCTIONS, "float", "int", "where", "threefry", "add", "sub"}) == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_missing_entry_is_found(name):
    assert missing(EMITTERS.keys() - {name}) == [name]


def test_names_are_written_once():
    assert len(OPERATIONS) == len(ROWS)
    assert SYMBOLS.keys() <= OPERATIONS.keys()
    assert not OPERATIONS.keys() & LEAVES.keys()
    assert not set(tracers.UFUNCS) & set(compositions.UFUNCS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_gives_what_it_says(row):
    """Kinds of the result, and a derivative share for each argument, of the arguments' own kind."""
    samples = {"float": np.array([0.5, 0.25]), "int": np.array([2, 3]), "bool": np.array([True, False])}
    dtypes = {"float": "f", "int": "i", "bool": "b"}
    for takes, gives in row.signatures:
        if row.name != "float":
            assert np.asarray(row.meaning(*(samples[kind] for kind in takes))).dtype.kind == dtypes[gives]
        args = tuple(Expression(f"x{n}", kind) for n, kind in enumerate(takes))
        if gives == "float" and row.derivative is not None:
            e = Expression(row.name, "float", args)
            shares = row.derivative(Expression("score", "float"), e, *args)
            assert len(shares) == len(args)
            assert all(share is None or share.kind == "float" for share in shares)
        if gives != "float" and "float" not in takes:
            assert row.interval is not None
    assert [KIND_RANK[gives] for _, gives in row.signatures] == sorted(KIND_RANK[gives] for _, gives in row.signatures)


# What is exact, as machine code on every instruction set

SPECIAL = [
    0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 7.0, 8388607.5, 8388608.0, 16777217.0, 4503599627370495.5, 1e30,
    3e38, 1e-30, 1e-45, 1.1754944e-38, math.inf, math.nan, 0.1, 0.7, 1 / 3, 5e15,
]  # fmt: skip
MEANINGS = {"floordiv": np.floor_divide, "mod": np.remainder}


def numbers(dtype):
    """Special numbers of both signs, and some of all sizes."""
    rng = np.random.default_rng(5)
    info = np.finfo(dtype)
    some = np.ldexp(rng.uniform(-1, 1, 150), rng.integers(info.minexp - 20, info.maxexp, 150))
    near = rng.uniform(-20, 20, 50)
    with np.errstate(all="ignore"):
        return np.concatenate([SPECIAL, np.negative(SPECIAL), some, near, [info.max, info.tiny]]).astype(dtype)


def same_floats(a, b):
    """Equal bits; any not-a-number equals any other."""
    return (np.isnan(a) & np.isnan(b)) | ((a == b) & (np.signbit(a) == np.signbit(b)))


@pytest.mark.parametrize("isa", native_isas())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc"])
def test_rounding_is_numpys_to_the_sign_of_0(name, dtype, isa):
    x = numbers(dtype)
    with using_isa(isa):
        assert same_floats(run(name, x), OPERATIONS[name].meaning(x)).all()


@pytest.mark.parametrize("isa", native_isas())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["copysign", "fmod", "mod", "floordiv"])
def test_remainders_are_pythons_for_all_pairs(name, dtype, isa):
    x = numbers(dtype)
    x, y = (side.ravel() for side in np.meshgrid(x, x))
    with np.errstate(all="ignore"), using_isa(isa):
        wanted, found = MEANINGS.get(name, OPERATIONS[name].meaning)(x, y), run(name, x, y)
    wrong = ~same_floats(found, wanted)
    assert not wrong.any(), (x[wrong][:5], y[wrong][:5], found[wrong][:5], wanted[wrong][:5])


def test_remainders_of_floats_are_pythons():
    x = np.concatenate([SPECIAL, np.random.default_rng(0).uniform(-20, 20, 95)])
    for a, b in zip(x.tolist(), x[::-1].tolist(), strict=True):
        if b and math.isfinite(a):
            assert same_floats(a % b, OPERATIONS["mod"].meaning(np.array(a), np.array(b)))
            assert same_floats(a // b, OPERATIONS["floordiv"].meaning(np.array(a), np.array(b)))


# Functions of a rule as Python's

LEAVES_OF_A_PAIR = {
    "score": np.array([-2.5, -1.5, -0.2, 0.0, 0.5, 1.7, 2.5]), "batch": np.array(0), "head": np.array(1),
    "query": np.arange(7) - 3, "key": np.arange(7),
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "plain"),
    [
        (lambda s, b, h, q, k: math.floor(s), math.floor),
        (lambda s, b, h, q, k: math.ceil(s), math.ceil),
        (lambda s, b, h, q, k: math.trunc(s), int),
        (lambda s, b, h, q, k: s.astype(int), int),
        (lambda s, b, h, q, k: functions.integer(s), int),
        (lambda s, b, h, q, k: round(s), round),
    ],
)
def test_floats_become_whole_numbers_as_in_python(rule, plain):
    formula = trace(rule, SCORE_PARAMETERS)
    assert formula.expression.kind == "int"
    assert evaluate(formula, LEAVES_OF_A_PAIR).tolist() == [plain(x) for x in LEAVES_OF_A_PAIR["score"]]


def test_whole_numbers_stay_whole():
    for rule in (lambda s, b, h, q, k: np.floor(q) + round(k) + math.ceil(q), lambda s, b, h, q, k: q.astype(np.int64)):
        assert trace(rule, SCORE_PARAMETERS).expression.kind == "int"


def test_adding_in_place_makes_a_new_number():
    def rule(score, batch, head, query, key):
        before = score
        score += 1
        score *= 2
        key -= query
        return before * 10 + score + key

    found = evaluate(trace(rule, SCORE_PARAMETERS), LEAVES_OF_A_PAIR)
    own = LEAVES_OF_A_PAIR
    np.testing.assert_allclose(found, own["score"] * 10 + (own["score"] + 1) * 2 + own["key"] - own["query"])


def test_methods_of_numpys_numbers():
    found = evaluate(
        trace(lambda s, b, h, q, k: s.clip(-1, 1) + s.round() + (q.clip(min=0)), SCORE_PARAMETERS), LEAVES_OF_A_PAIR
    )
    score, query = LEAVES_OF_A_PAIR["score"], LEAVES_OF_A_PAIR["query"]
    assert found.tolist() == (score.clip(-1, 1) + score.round() + query.clip(min=0)).tolist()


TABLE = np.linspace(0, 1, 16)


MASKED = {"mask": where(lambda batch, head, query, key: np.trunc(key * 0.3) <= query)}


@pytest.mark.parametrize(
    ("isa", "dtype", "given"), [(*way, given) for way, given in in_turns(isas_and_dtypes(), ({}, MASKED, MASKED), 1)]
)
def test_a_float_indexes_a_table(isa, dtype, given):
    """T5's buckets, written with a logarithm."""
    q, k = (np.random.default_rng(n).standard_normal((2, 40, 4)).astype(dtype) for n in range(2))

    def bucketed(score, batch, head, query, key):
        return score + TABLE[math.floor(2 * np.log2(abs(query - key) + 1))]

    def looked_up(score, batch, head, query, key):
        return score + BUCKETS[abs(query - key)]

    with using_isa(isa):
        own, other = (attend(q, k, k, score=rule, **given).output for rule in (bucketed, looked_up))
        assert np.array_equal(own, other)


BUCKETS = TABLE[np.floor(2 * np.log2(np.arange(64.0) + 1)).astype(int)]


@pytest.mark.parametrize("number", [math.nan, math.inf, -1e300])
def test_what_is_no_whole_number_is_told(number):
    x = np.full((1, 3, 2), 1.0)

    def rule(score, batch, head, query, key):
        return score + math.floor(score * number)

    with pytest.raises(TraceError, match=r"test_operations\.py, line .*makes a whole number of a float that is none"):
        attend(x, x, x, score=rule)


def test_the_index_of_a_rounded_float_is_looked_at():
    x = np.full((1, 3, 2), 9.0)
    with pytest.raises(TraceError, match="reads place 162 of an axis"):
        attend(x, x, x, score=lambda score, batch, head, query, key: score + TABLE[round(score)], scale=1.0)


def test_a_constant_is_folded_as_python_has_it():
    formula = trace(lambda s, b, h, q, k: s + (-7 // np.where(True, 2, 1)) + 0 * k, SCORE_PARAMETERS)
    assert "-4.0" in repr(formula.expression)
    assert isinstance(formula, Formula)
