"""Score rules and masks on a GPU: each kernel written for them, its PTX run on this processor by a stand-in driver."""

import functools
import re
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import clearhead
from clearhead import alibi, bias, causal, dense, full, softcap, where, window
from clearhead.attention_weights.matrix import weights_of
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import problem_of
from clearhead.errors import InputError, MachineError, ShapeError
from clearhead.gpu import attend, confirmed, driver, launch
from clearhead.gpu.card_rules import card_rules
from clearhead.gpu.confirmed import Sample, computed
from clearhead.gpu.programs import Program
from clearhead.gpu.weights import weights_on
from clearhead.rules import functions
from clearhead.rules.expression import immutable_copy
from tests.gpu.comparing import aligned, drawn, unequal
from tests.gpu.emulation import ORDERS

END = "end"
RNG = np.random.default_rng(0)
LONG = 2200  # keys of two segments


def kernel_on(card, kind, dim, rules):
    return launch.kernel_of(card, Program(kind, launch.tile_of(card, dim), rules.variant))


def different(card, q, k, v, rules):
    """How many numbers of output and LSE differ from the CPU's."""
    problem = problem_of(Operands(q, k, v), rules)
    assert launch.limits(problem) is None
    sink = None if rules.sink is None else np.ascontiguousarray(np.broadcast_to(rules.sink, problem.lead))
    found = computed(kernel_on(card, "windowed", q.shape[-1], card_rules(problem)), Sample((q, k, v), problem, sink))
    expected = clearhead.attend(q, k, v, mask=rules.mask, score=rules.score, sink=rules.sink, scale=rules.scale)
    return sum(unequal(a, b) for a, b in zip(found, (expected.output, expected.lse), strict=True))


def dilated(batch, head, query, key):
    return ((query - key) % 3 == 0) | (key == 0)


def by_place(score, batch, head, query, key):
    return score * (1 + 0.25 * batch) - 0.125 * head + np.cos((query * 7 - key) * 0.01)


TABLE = RNG.standard_normal((4, 70, LONG)).astype(np.float32)
EVERY = window(None, None, align=END)
NEAR = RNG.standard_normal((8, 201)).astype(np.float16)
WORDS = RNG.integers(0, 4, LONG).astype(np.int16)
SOME = RNG.random((70, LONG)) < 0.4
BLOCKS = np.repeat(np.repeat(RNG.random((2, 20)) < 0.5, 64, 0), 128, 1)[:70, :LONG]


def same_word(batch, head, query, key):
    return WORDS[query] == WORDS[key]


CASES = {  # queries, keys, leading axes of queries, of keys, rules
    "softcap": (70, 300, (2, 4), (2, 2), {"score": softcap(0.5), "mask": causal(align=END)}),
    "alibi": (130, 130, (4,), (4,), {"score": alibi(4)}),
    "a bias, two segments": (70, LONG, (2, 4), (2, 2), {"score": bias(TABLE), "mask": full()}),
    "places": (70, 200, (3, 2, 4), (1, 2, 2), {"score": by_place, "mask": window(90, 20, align=END)}),
    "a relative bias": (70, 100, (2, 8), (2, 2), {"score": clearhead.relative(NEAR, 100), "mask": causal(align=END)}),
    "dilated": (130, 130, (2,), (2,), {"mask": causal() & where(dilated)}),
    "dense": (70, LONG, (2,), (2,), {"mask": dense(SOME)}),
    "blocks that nobody sees": (70, LONG, (), (), {"mask": dense(BLOCKS)}),
    "nobody sees anything": (70, 200, (2,), (2,), {"mask": dense(np.zeros((70, 200), bool))}),
    "by captured words": (200, 200, (2,), (2,), {"mask": causal() & where(same_word)}),
    "several": (
        70,
        LONG,
        (4,),
        (2,),
        {"score": [softcap(3.0), bias(TABLE)], "mask": dense(SOME) & window(2100, 9, align=END)},
    ),
    "at a place": (40, 300, (2,), (2,), {"score": by_place, "mask": causal(at=200) & where(dilated)}),
    "one": (1, 1, (), (), {"score": by_place, "mask": where(dilated)}),
    "no keys": (3, 0, (2,), (2,), {"score": softcap(1.0), "mask": full()}),
}


@pytest.mark.parametrize("case", CASES)
def test_rules_have_the_cpus_bits(cards, case):
    queries, keys, lead, key_lead, rules = CASES[case]
    q, k, v = drawn(queries, (*lead, queries, 32), (*key_lead, keys, 32), (*key_lead, keys, 32))
    assert not different(cards(), q, k, v, Rules(**rules))


RTX = {"_97": 101376, "_81": 102400}


@pytest.mark.parametrize(("dim", "attributes"), [(64, {}), (96, RTX), (128, {})], ids=["64", "96, RTX", "128"])
def test_every_tile_with_a_sink(cards, dim, attributes):
    q, k, v = drawn(dim, (2, 70, dim), (2, 300, dim), (2, 300, dim))
    rules = Rules(causal(align=END) & where(dilated), by_place, np.array([0.5, -1.0], np.float32))
    assert not different(cards(**attributes), q, k, v, rules)


def of_size(*functions):
    """Their sum: a kernel of three functions takes little longer than one of one."""
    return lambda score, batch, head, query, key: sum(function(abs(score) * 0.1) for function in functions)


FUNCTIONS = {
    **{name: getattr(np, name) for name in ("exp", "exp2", "expm1", "log1p", "tanh", "sqrt", "cbrt", "sinh", "cosh")},
    **{name: getattr(np, name) for name in ("sin", "cos", "tan", "arctan", "floor", "ceil", "trunc", "rint")},
    **{name: getattr(functions, name) for name in ("erf", "erfc", "sigmoid", "softplus", "gelu")},
    "logs": lambda x: np.log(x + 1e-3) + np.log2(x + 1) * np.log10(x + 2),
    "arcs": lambda x: np.arcsin(np.minimum(x, 1)) - np.arccos(np.minimum(x, 1)),
    "powers": lambda x: x**1.3 + 2.0**x + np.arctan2(x, 3 - x),
    "remainders": lambda x: x % 0.07 + np.fmod(x, 0.3) + x // 0.4,
}
OF_POSITIONS = {
    "whole numbers": lambda s, b, h, q, k: s + ((q * 7 + k) // 3 % 5 - abs(q - k)) * 0.1,
    "64 bits": lambda s, b, h, q, k: s + (q * 70_000_000_000 + k * 3_000_000_007) // 7 % 5 * 0.1,
    "choices": lambda s, b, h, q, k: np.where((q > k) ^ (s < 0), -s, np.maximum(s, k * 0.01)),
    "bits": lambda s, b, h, q, k: s + np.where(((q < 5) | (k != 7)) & ~(q == k), 1.0, 0.0),
}
THREES = [list(FUNCTIONS)[start : start + 3] for start in range(0, len(FUNCTIONS), 3)]
RULES = {", ".join(names): of_size(*(FUNCTIONS[name] for name in names)) for names in THREES} | OF_POSITIONS
DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint32", "bool"]


@pytest.mark.parametrize("name", RULES)
def test_every_operation(cards, name):
    q, k, v = drawn(3, (2, 40, 32), (2, 150, 32), (2, 150, 32))
    assert not different(cards(), q, k, v, Rules(EVERY, RULES[name]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_dtype(cards, dtype):
    """Dense ones and views, read by query and key, by the key alone, and by what is the same for all."""
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    numbers = (RNG.standard_normal((160, 2, 300)) * 3).astype(np.int64 if kind.kind in "iub" else np.float64)
    table = (numbers % 7 if kind.kind == "u" else numbers > 0 if kind.kind == "b" else numbers).astype(kind)

    def rule(score, batch, head, query, key):
        each = table[query, 1, key] * 0.5 + table[3, head, -2]
        return score + each + table[::-1, 0, ::3][5, key // 2] * 1.0

    q, k, v = drawn(4, (2, 40, 32), (2, 150, 32), (2, 150, 32))
    assert not different(cards(), q, k, v, Rules(EVERY, rule))


@pytest.mark.parametrize("special", ["not a number", "minus infinity", "infinity", "hidden values", "huge scores"])
def test_special_numbers(cards, special):
    """What a mask hides is not even multiplied; what a rule makes −∞ is seen, and its value is."""
    q, k, v = drawn(7, *[(2, 200, 32)] * 3)
    score, mask = by_place, causal() & where(dilated)
    match special:
        case "not a number":
            k[0, 50], v[0, 60], v[1, 150, 3] = np.nan, np.inf, np.nan
        case "minus infinity":
            score, v[0, 30] = lambda s, b, h, q, k: np.where((k > 20) & (k < 40), -np.inf, s), np.inf
        case "infinity":
            score = lambda s, b, h, q, k: np.where(k == q - 90, np.inf, s)  # noqa: E731
        case "hidden values":
            mask, v[:, 1::2] = dense(np.arange(200)[None] % 2 == 0), np.nan
        case "huge scores":
            q, k = q * np.float32(1e20), k * np.float32(1e20)
    with np.errstate(all="ignore"):
        assert not different(cards(), q, k, v, Rules(mask, score))


@pytest.mark.parametrize("late", [False, True], ids=["copies at once", "late copies"])
@pytest.mark.parametrize("order", ORDERS)
def test_threads_in_any_order(cards, order, late):
    card = cards()
    card.driver.library.order, card.driver.library.late = order, late
    q, k, v = drawn(9, (70, 64), (LONG, 64), (LONG, 64))
    assert not different(card, q, k, v, Rules(dense(BLOCKS) & EVERY, by_place))


BARRIER = re.compile(r"\tbar\.(?:sync|red)[^\n]*\n")
FEW, MANY = (8, 10)  # barriers of a kernel with a score rule, and with a mask, too


@pytest.mark.parametrize(("masked", "number"), [*((False, n) for n in range(FEW)), *((True, n) for n in range(MANY))])
def test_each_barrier_is_needed(cards, masked, number):
    """Without it, some order of threads gives other bits; a vote is replaced by the thread's own."""
    q, k, v = drawn(10, (64, 32), (2304, 32), (2304, 32))
    seen = np.ones((64, 2304), bool)
    seen[:, 128:256], seen[3:, 300:400], seen[5:50, 500:] = False, False, False
    if masked:
        v[350] = np.inf  # which most rows do not see
    rules = Rules((dense(seen) if masked else full()) & EVERY, by_place)

    def without(ptx):
        found = list(BARRIER.finditer(ptx))
        assert len(found) == (MANY if masked else FEW)
        vote = re.match(r"\tbar\.red\.or\.pred\s+(%p\d+), 0, (%p\d+)", found[number][0])
        instead = f"\tmov.pred {vote[1]}, {vote[2]};\n" if vote else ""
        return ptx[: found[number].start()] + instead + ptx[found[number].end() :]

    def noticed(order):
        card = cards(spoil=without)
        card.driver.library.order = order
        try:
            return bool(different(card, q, k, v, rules))
        except RuntimeError:  # some threads were done while others waited
            return True

    with np.errstate(all="ignore"):
        assert any(map(noticed, ORDERS))


# Weights


QUESTIONS = ("entropy", "distance", "within", "first", "off_first", "top", "received_sum", "received_max")


def answers(w):
    """Everything that the kernels compute: rows, parts, some heads, numbers, pictures."""
    found = [w.block(), w.scores.block(slice(0, 70), slice(3, 140)), w[..., -1, :], w.lse, w[..., [0, 9, -1], :]]
    found += [*w.summary(*QUESTIONS, top=5, window=9).values(), w.map(size=(7, 33)), w.map(slice(5, 60), slice(3, 90))]
    found += [w.map(size=9, reduce="sum")]
    if w.ndim > 2:
        found += [np.asarray(w[..., -1, :, :]), *w[..., -1, :, :].summary(*QUESTIONS).values()]
    return found


@pytest.mark.parametrize("case", ["places", "a relative bias", "blocks that nobody sees", "dilated", "at a place"])
def test_weights_have_the_cpus_bits(cards, case):
    queries, keys, lead, key_lead, rules = CASES[case]
    keys = min(keys, 700)
    if case == "blocks that nobody sees":
        rules = {"mask": dense(BLOCKS[:, :keys])}
    q, k = drawn(queries, (*lead, queries, 32), (*key_lead, keys, 32))
    given, card = Rules(**rules), cards()
    own = card_rules(problem_of(Operands(q, k, k), given))
    kernels = functools.cache(lambda kind: kernel_on(card, kind, 32, own))
    found = answers(weights_on(card, q, k, given, kernels)[0])
    expected = answers(weights_of(q, k, given, lse=None, threads=None, matching=True))
    assert not any(unequal(a, b) for a, b in zip(found, expected, strict=True))


# Calls


class OnCard:
    """An array as other libraries give theirs."""

    def __init__(self, array) -> None:
        self.__cuda_array_interface__ = array.__array_interface__ | {"version": 3}


def attended(q, k, v, **options):
    out, lse = aligned(np.zeros(q.shape)), aligned(np.zeros(q.shape[:-1]))
    attend(*map(OnCard, (q, k, v)), out=OnCard(out), lse=OnCard(lse), **options)
    return out, lse


def test_a_call_is_compared_once(cards):
    """Constants are numbers of each call, arrays are copied for it, and functions are traced anew when they change."""
    card = cards()
    q, k, v = drawn(11, *[(2, 2, 90, 32)] * 3)
    table = RNG.standard_normal((90, 90)).astype(np.float32)
    for score in (softcap(2.0), softcap(0.25), bias(table)):
        expected = clearhead.attend(q, k, v, score=score)
        out, lse = attended(q, k, v, score=score, stream=7)
        assert (out.tobytes(), lse.tobytes()) == (expected.output.tobytes(), expected.lse.tobytes())
    assert len(card.kernels) == 2
    launches = len(card.driver.library.launches)
    table *= 3
    assert (
        attended(q, k, v, score=bias(table), stream=7)[0].tobytes()
        == clearhead.attention(q, k, v, score=bias(table)).tobytes()
    )
    assert len(card.driver.library.launches) == launches + 1
    called = card.driver.library.called
    assert ("wait", 7) in [call[:2] for call in called]  # for the copies
    assert called[-1] == ("finish", 7)  # before they are freed
    card.driver.library.capturing.add(9)
    with pytest.raises(MachineError, match="holds no arrays of this computer: call outside of it"):
        attended(q, k, v, score=bias(table), stream=9)
    attended(q, k, v, score=softcap(9.0), stream=9)


def test_an_array_of_no_axes(cards):
    temperature = np.array(0.5, np.float32)
    q, k, v = drawn(15, *[(2, 40, 32)] * 3)
    assert not different(cards(), q, k, v, Rules(causal(), lambda s, b, h, q, k: s * temperature[()]))


def test_other_bits_are_refused(cards):
    """The self-test of a kernel with rules computes with these rules."""
    cards(spoil=lambda ptx: ptx.replace("sqrt.rn.f32", "rcp.rn.f32"))
    q, k, v = drawn(12, *[(20, 32)] * 3)
    attended(q, k, v)
    with pytest.raises(MachineError, match="does not give the CPU's bits"):
        attended(q, k, v, score=lambda s, b, h, q, k: np.sqrt(abs(s)))


def test_stand_ins_keep_what_cannot_change():
    rng, known = np.random.default_rng(0), immutable_copy(np.arange(5))
    first, second = confirmed.stand_ins(rng, (known, np.ones((2, 5000), ml_dtypes.bfloat16)))
    assert first is known
    assert (second.shape, second.dtype) == ((2, 300), ml_dtypes.bfloat16)


# torch


@pytest.fixture
def torch(monkeypatch, cards):
    """torch, with tensors of this computer's memory as a card's."""
    found = pytest.importorskip("torch")
    own = driver.Driver.card
    cards()
    monkeypatch.setattr(found.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=11))
    monkeypatch.setattr(driver.Driver, "card", lambda self, index: own(self, index or 0))
    return found


def test_tables_of_tensors(torch):
    """They are read where they are: written to, the next call has other numbers, and no kernel is made for it."""
    from clearhead.adapters.torch import card, rule_names

    q, k, v = (torch.from_numpy(x) for x in drawn(13, (2, 4, 70, 32), (2, 2, 70, 32), (2, 2, 70, 32)))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        table = torch.randn(4, 70, 70).to(dtype)
        for _ in range(2):
            array = table.float().numpy()
            rule, _ = rule_names.split_rules(causal(), (bias(array),))
            output, lse = card.on_card(q, k, v, [table], None, rule.name, 0.3)
            expected = clearhead.attend(*(x.numpy() for x in (q, k, v)), score=bias(array), scale=0.3)
            assert np.ascontiguousarray(output.numpy()).tobytes() == expected.output.tobytes()
            assert lse.numpy().tobytes() == expected.lse.tobytes()
            table.mul_(2)
    assert len(driver.driver().card(0).kernels) == 3  # the dtype is part of the code
    finished = [call for call in driver.driver().library.called if call[0] == "finish"]
    assert {stream for _, stream in finished} <= {None}  # the self-tests copied arrays, but no call did


def test_weights_with_tables(torch):
    from clearhead.adapters.torch import rule_names
    from clearhead.adapters.torch.card_weights import card_weights

    q, k = (torch.from_numpy(x) for x in drawn(14, (4, 70, 32), (2, 70, 32)))
    seen, slopes = torch.rand(70, 70) < 0.7, torch.tensor([1.0, 0.5, 0.25, 0.125])
    rules = {"mask": causal() & dense(seen.numpy()), "score": alibi(slopes.numpy())}
    rule, _ = rule_names.split_rules(rules["mask"], (rules["score"],))
    w = card_weights(q, k, [seen, slopes], None, rule.name, 0.3, None)
    expected = clearhead.weights(q.numpy(), k.numpy(), scale=0.3, **rules)
    assert not unequal(np.asarray(w[1:3, 5]), expected[1:3, 5])
    assert not unequal(w.summary("entropy").entropy, expected.summary("entropy").entropy)
    slopes.mul_(2)
    with pytest.raises(InputError, match=r"numbers of table 1 of the rules, of shape \(4,\) were changed in place"):
        w.row(3)


GROUP_TABLE = RNG.standard_normal((3, 5))
GROUPS, SIZES = RNG.integers(0, 3, 70), RNG.integers(1, 5, 70)


def by_groups(score, batch, head, query, key):
    return score + GROUP_TABLE[GROUPS[query], key // SIZES[query] % 5]


def test_indices_and_divisors_of_the_cpu(torch):
    """Numbers that are copied for a call show that no index leaves an array, and that none divides by 0."""
    from clearhead.adapters.torch import card
    from clearhead.adapters.torch.attention_api import rule_and_tables

    q, k, v = (torch.from_numpy(x) for x in drawn(16, *[(2, 70, 32)] * 3))
    score = (clearhead.relative(NEAR[:2, :32], 128, bidirectional=True), by_groups)
    name, tables = rule_and_tables(causal(), *score)
    output, _ = card.on_card(q, k, v, list(tables), None, name, 32**-0.5)
    expected = clearhead.attention(q.numpy(), k.numpy(), v.numpy(), score=score)
    assert not unequal(np.ascontiguousarray(output.numpy()), expected)
    SIZES[0] = 0
    try:
        with pytest.raises(InputError, match="divide by 0"):
            card.on_card(q, k, v, list(tables), None, name, 32**-0.5)
    finally:
        SIZES[0] = 1


def test_weights_of_negated_views(torch):
    """As torch gives them for the imaginary part of a conjugate."""
    from clearhead.adapters.torch import rule_names
    from clearhead.adapters.torch.card_weights import card_weights

    q, k, slopes = (torch._neg_view(torch.from_numpy(x)) for x in drawn(17, (2, 70, 32), (2, 70, 32), (2,)))
    rule, _ = rule_names.split_rules(causal(), (alibi(slopes.numpy(force=True)),))
    w = card_weights(q, k, [slopes], slopes, rule.name, 0.3, None)
    q, k, slopes = (x.numpy(force=True) for x in (q, k, slopes))
    assert not unequal(np.asarray(w), np.asarray(clearhead.weights(q, k, scale=0.3, score=alibi(slopes), sink=slopes)))


def test_weights_whose_tables_do_not_fit(torch):
    """They are refused before anything is computed, as by `attention`."""
    from clearhead.adapters.torch import attention_weights

    q, k = (torch.from_numpy(x) for x in drawn(18, *[(2, 10, 32)] * 2))
    for rules in ({"score": alibi(3)}, {"score": bias(TABLE[:2, :11, :11])}, {"mask": dense(SOME[:9, :10])}):
        with pytest.raises(ShapeError, match="does not fit this attention"):
            attention_weights(q, k, **rules)


def test_tables_elsewhere(torch):
    from clearhead.adapters.torch import card

    fake = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode
    with fake():
        query = torch.empty(2, 10, 32, device="cuda:0")
        with pytest.raises(InputError, match=r"a tensor of shape \(3,\) on cuda:1, query is on cuda:0: move it"):
            card.table_on(torch.empty(3, device="cuda:1"), query)
        assert card.table_on(torch.empty(3), query).device == query.device
