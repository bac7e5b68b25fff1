"""The law of partial sums: any ascending fold at the borders of segments has the bits of one call.

Everything is compared with the definition or with one call, by equality of bits.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from clearhead import (
    DtypeError,
    InputError,
    KeyValueCache,
    Partial,
    ShapeError,
    TraceError,
    alibi,
    attend,
    bias,
    blocks,
    causal,
    dense,
    dilated,
    documents,
    full,
    join,
    partial,
    prefix,
    query_gradient,
    softcap,
    weights,
    where,
    window,
)
from clearhead.definition import canonical, pieces
from clearhead.engine import carried
from clearhead.machine.target import native_isas
from clearhead.machine.threads import run_kernel
from clearhead.pieces import segments
from clearhead.pieces.stretch import Call, stretch_of
from clearhead.testing import using_isa
from tests.arrays import random
from tests.kernels.combinations import in_turns

SEGMENT = 2048
LONGEST = 3 * SEGMENT + 200
PAIRS = random(1, LONGEST // 64, LONGEST // 64)[0]
TABLE, BIAS = (x.repeat(64, 0).repeat(64, 1) for x in (PAIRS > -0.5, PAIRS.astype(np.float32)))
OFFSETS = np.linspace(-1, 1, LONGEST).astype(np.float32)
SINK = np.array([0.5, -1.0, 9.0, -np.inf], np.float32)


def sloped(score, batch, head, query, key):
    """A rule that reads both positions, the head, and a table by position."""
    return score * 0.5 + OFFSETS[key] - np.where(head > 1, 0.001, 0.002) * (query - key)


def sparse(batch, head, query, key):
    """A mask that reads both positions."""
    return (query * 7 + key) % 3 != head


RULES: dict[str, tuple[Any, Any]] = {
    "causal": (causal, ()),
    "full": (full, ()),
    "window": (lambda **at: window(100, **at), ()),
    "wide window": (lambda **at: window(2500, 70, **at), softcap(3.0)),
    "ahead": (lambda **at: window(5, None, **at), ()),
    "dilated": (lambda **at: dilated(3, **at), ()),
    "prefix": (lambda **at: causal(**at) | prefix(2100), ()),
    "dense": (lambda **at: causal(**at) & dense(TABLE), ()),
    "blocks": (lambda **at: full(**at) & blocks(PAIRS > 0, 64), ()),
    "bias": (causal, bias(BIAS)),
    "alibi": (full, alibi(4)),
    "traced": (lambda **at: causal(**at) & where(sparse), sloped),
}


def whole_rules(name: str, *, length: int) -> dict[str, Any]:
    """Rules of one call over all queries and keys: tables must have just its size."""
    mask, score = RULES[name]
    rules = {"mask": mask(), "score": score}
    if name == "dense":
        rules["mask"] = causal() & dense(TABLE[:length, :length])
    if name == "bias":
        rules["score"] = bias(BIAS[:length, :length])
    return rules


@dataclass(frozen=True)
class Fold:
    """Some queries of a call, and cuts of its keys; printable so that a failure can be repeated."""

    rules: str
    dtype: Any
    length: int
    queries: tuple[int, int]
    cuts: tuple[int, ...]
    dim: int
    value_dim: int
    isa: str
    threads: int
    odd: str

    def arrays(self) -> list[np.ndarray]:
        """q of 4 heads, k and v of 2."""
        q, k, v = (
            random(heads, self.length, dim, seed=7)
            for heads, dim in ((4, self.dim), (2, self.dim), (2, self.value_dim))
        )
        if self.odd == "hidden":  # what a causal query may not see must not matter
            k[:, self.queries[1] :], v[:, self.queries[1] :] = np.nan, np.inf
        if self.odd == "infinite":
            k[:, ::5, 0] = np.inf
        if self.odd == "large":
            q *= 40
        return [x.astype(self.dtype) for x in (q, k, v)]


KINDS = in_turns([np.float32, np.float64, np.float16, bfloat16, np.float32], native_isas(), 1)


@st.composite
def folds(draw: st.DrawFn, rules: st.SearchStrategy[str]) -> Fold:
    """Lengths near the borders of segments, pieces of the queries, and cuts at segments."""
    length = draw(st.integers(1, 3)) * SEGMENT + draw(st.sampled_from([-1, 0, 1, 63, 127]))
    first = draw(st.sampled_from([0, 1, 2000, SEGMENT - 3, SEGMENT, length // 2, length - 40, length - 1]))
    first = min(first, length - 1)
    count = draw(st.sampled_from([1, 3, 4, 5, 40, 65]))
    borders = range(SEGMENT, length, SEGMENT)
    cuts = draw(st.sets(st.sampled_from(borders))) if len(borders) else set()
    dtype, isa = draw(st.sampled_from(KINDS))
    return Fold(
        draw(rules), dtype, length,
        (first, min(length, first + count)), (0, *sorted(cuts), length), draw(st.sampled_from([2, 16])),
        draw(st.sampled_from([1, 16, 33])), isa, draw(st.sampled_from([1, 2, 7])),
        draw(st.sampled_from(["", "", "hidden", "infinite", "large"])),
    )  # fmt: skip


def same(got: np.ndarray, wanted: np.ndarray) -> bool:
    """Equal numbers, nothing a number where nothing is: payloads are not promised."""
    return got.dtype == wanted.dtype and np.array_equal(
        got.astype(np.float64), wanted.astype(np.float64), equal_nan=True
    )


def folded(case: Fold) -> Partial:
    """The fold of a case."""
    q, k, v = case.arrays()
    (first, stop), (mask, score) = case.queries, RULES[case.rules]
    total: Partial | None = None
    for begin, end in itertools.pairwise(case.cuts):
        total = partial(
            q[:, first:stop], k[:, begin:end], v[:, begin:end], mask=mask(at=first), score=score, first_key=begin,
            before=total, threads=case.threads,
        )  # fmt: skip
    assert total is not None
    return total


def check(case: Fold) -> None:
    """A fold equals one call, and its queries' rows of the call over everything."""
    q, k, v = case.arrays()
    first, stop = case.queries
    with using_isa(case.isa):
        done = folded(case).finish(SINK)
    whole = attend(q, k, v, sink=SINK, **whole_rules(case.rules, length=case.length))
    assert same(done.output, whole.output[:, first:stop])
    assert same(done.lse, whole.lse[:, first:stop])


BANDS = ["causal", "full", "window", "wide window", "ahead"]


@settings(max_examples=20)
@given(folds(st.sampled_from(BANDS)))
def test_a_fold_has_the_bits_of_one_call(case: Fold):
    check(case)


@settings(max_examples=16)
@given(folds(st.sampled_from(sorted(RULES.keys() - set(BANDS)))))
def test_a_fold_has_the_bits_of_one_call_under_any_rule(case: Fold):
    check(case)


@pytest.mark.parametrize(("rules", "queries"), in_turns(RULES, [(2500, 2570), (4096, 4099)], 1))
def test_each_rule_reads_the_positions_of_the_whole_call(rules, queries):
    length = 2 * SEGMENT + 63
    check(Fold(rules, np.float32, length, queries, (0, SEGMENT, length), 16, 16, native_isas()[0], 2, ""))
    check(Fold(rules, np.float32, length, queries, (0, length), 16, 16, native_isas()[0], 2, ""))


@pytest.mark.parametrize(
    ("rules", "dtype", "count", "dim"),
    [
        ("causal", np.float64, 2, 16),
        ("window", np.float32, 6, 3),
        ("traced", bfloat16, 2, 16),
        ("traced", np.float32, 6, 3),
        ("dense", np.float32, 2, 16),
    ],
)
def test_sums_are_those_of_the_definition(rules, dtype, count, dim):
    """With the decode kernel (two queries) and the forward kernel."""
    length, first = SEGMENT + 140, SEGMENT + 20
    q, k, v = (random(heads, length, dim, seed=3).astype(dtype) for heads in (4, 2, 2))
    mask, score = RULES[rules]
    given = {"mask": mask(at=first), "score": score}
    piece = q[:, first : first + count]
    one = partial(piece, k[:, :SEGMENT], v[:, :SEGMENT], **given)
    defined = pieces.partial(piece, k[:, :SEGMENT], v[:, :SEGMENT], **given)
    for step in (0, 1):
        for name, own, wanted in zip("mlo", one.sums, defined, strict=True):
            assert same(own, wanted), (step, name)
        one = one.then(k[:, SEGMENT:], v[:, SEGMENT:]) if step == 0 else one
        defined = pieces.partial(piece, k[:, SEGMENT:], v[:, SEGMENT:], first_key=SEGMENT, before=defined, **given)
    sums = pieces.partial(piece, k[:, :SEGMENT], v[:, :SEGMENT], **given)
    sums = pieces.partial(piece, k[:, SEGMENT:], v[:, SEGMENT:], first_key=SEGMENT, before=sums, **given)
    y, lse = pieces.finish(sums, SINK)
    done = one.finish(SINK)
    assert same(done.output, y.astype(dtype))
    assert same(done.lse, lse)


def test_the_definitions_fold_is_the_definitions_attention():
    length = SEGMENT + 30
    q, k, v = (random(2, length, 3)[:, -4:] if n == 0 else random(2, length, 3, seed=n) for n in range(3))
    given = {"mask": window(2000, at=length - 4), "score": softcap(2.0)}
    total = pieces.partial(q, k[:, :SEGMENT], v[:, :SEGMENT], **given)
    own = pieces.partial(q, k[:, SEGMENT:], v[:, SEGMENT:], first_key=SEGMENT, **given)
    y, lse = pieces.finish(pieces.join(total, own), [0.5, -1])
    wanted = canonical.attention(q, k, v, mask=window(2000, align="end"), score=softcap(2.0), sink=[0.5, -1])
    assert same(y, wanted[0])
    assert same(lse, wanted[1])


@pytest.mark.parametrize(
    ("isa", "cached", "count"),
    [
        (*kind, count)
        for kind, count in in_turns(itertools.product(native_isas(), [False, True, "int8"]), [1, 30, 4, 30], 1)
    ],
)
def test_segments_that_were_found_apart_join_to_one_call(isa, count, cached):
    """As in decoding over a cache that is spread over machines: each has some segments, queries travel."""
    length, first = 2 * SEGMENT + 300, 2 * SEGMENT + 100
    q, k, v = random(4, length, 32)[:, first : first + count], *(random(2, length, 32, seed=n) for n in (1, 2))
    parts = []
    with using_isa(isa):
        for begin, end in ((0, SEGMENT), (SEGMENT, length)):
            keys: Any = (k[:, begin:end], v[:, begin:end])
            if cached:
                keys = (KeyValueCache(dtype="int8" if cached == "int8" else None),)
                keys[0].append(k[:, begin:end], v[:, begin:end])
            parts += segments(q, *keys, mask=window(4000, at=first), first_key=begin)
        assert [(part.first_key, part.stop) for part in parts] == [(0, 2048), (2048, 4096), (4096, length)]
        total = parts[0]
        for part in parts[1:]:
            total = join(total, part)
        done = total.finish(SINK)
        whole: Any = (k[:, : first + count], v[:, : first + count])
        if cached:
            whole = (KeyValueCache(dtype="int8" if cached == "int8" else None),)
            whole[0].append(k[:, : first + count], v[:, : first + count])
        wanted = attend(q, *whole, mask=window(4000, align="end"), sink=SINK)
        once = partial(q, *whole, mask=window(4000, at=first)).finish(SINK)
    assert same(once.output, wanted.output)
    assert same(done.output, wanted.output)
    assert same(done.lse, wanted.lse)


def test_documents_are_cut_at_their_own_segments():
    lengths = [SEGMENT + 5, 0, 70, 2 * SEGMENT + 9]
    total = sum(lengths)
    q, k, v = (random(2, total, 4, seed=n) for n in range(3))
    packed = documents(lengths)
    wanted = attend(q, k, v, mask=causal() & packed)
    for first, stop in ((0, 40), (2040, 2200), (total - 2100, total - 1900), (total - 30, total)):
        for cuts in ((0, total), (0, SEGMENT + 75, total), (0, 2 * SEGMENT + 75, total)):
            part = None
            if stop <= 2200 and cuts[1:-1] == (2 * SEGMENT + 75,) and first < 2123 < stop:
                cuts = (0, total)  # the third document begins between
            for begin, end in itertools.pairwise(cuts):
                part = partial(
                    q[:, first:stop], k[:, begin:end], v[:, begin:end], mask=causal(at=first) & packed,
                    first_key=begin, before=part,
                )  # fmt: skip
            done = part.finish()
            assert same(done.output, wanted.output[:, first:stop])
            assert same(done.lse, wanted.lse[:, first:stop])
    with pytest.raises(InputError, match=r"begins at key 2048.*begins at 0|begins at key 4096.*2123"):
        partial(q[:, -5:], k[:, 4096:], v[:, 4096:], mask=causal(at=total - 5) & packed, first_key=4096)
    with pytest.raises(InputError, match="packs documents"):
        segments(q[:, -5:], k, v, mask=causal(at=total - 5) & packed)


def test_queries_that_see_nothing_stay_empty():
    q, k, v = (random(5, 4), *(random(2 * SEGMENT, 4, seed=n) for n in (1, 2)))
    done = partial(q, k, v, mask=window(3, at=10 * SEGMENT)).finish()
    assert not done.output.any()
    assert np.isneginf(done.lse).all()
    hidden = np.full((1, 2 * SEGMENT), -np.inf, np.float32)
    done = (
        partial(q, k[:SEGMENT], v[:SEGMENT], mask=full(at=0), score=bias(hidden))
        .then(k[SEGMENT:], v[SEGMENT:])
        .finish()
    )
    assert not done.output.any()
    assert np.isneginf(done.lse).all()


def test_a_left_edge_far_behind_does_not_cut():
    """No left edge is none, however far the queries stand behind these keys."""
    q, k, v = (random(count, 16, seed=count) for count in (3, SEGMENT, SEGMENT))
    for mask in (causal, full, lambda at: window(None, 0, at=at)):
        far = partial(q, k, v, mask=mask(at=1 << 30)).finish()
        wanted = attend(q, k, v, mask=full())
        assert same(far.output, wanted.output)


def test_a_partial_sum_is_not_changed_by_carrying_it_on():
    q, k, v = (random(40, 8, seed=n) for n in range(3))
    one = partial(q, k, v, mask=full())
    copies = [x.copy() for x in one.sums]
    one.finish()
    with pytest.raises(InputError, match="begins at key 40, within a segment: keys are cut at multiples of 2048"):
        one.then(k, v)
    more = random(SEGMENT, 8)
    first = partial(q, more, more, mask=full())
    before = [x.copy() for x in first.sums]
    join(first, first.then(k, v).call and partial(q, k, v, mask=full(), first_key=SEGMENT))
    assert all(map(same, one.sums, copies))
    assert all(map(same, first.sums, before))


def test_wrong_orders_and_operands_are_errors_that_name_them():
    q, k, v = (random(2, SEGMENT, 4, seed=n) for n in range(3))
    one = partial(q, k, v, mask=causal(at=0))
    with pytest.raises(InputError, match="ends before key 2048, but these keys begin at 4096"):
        partial(q, k, v, mask=causal(at=0), first_key=4096, before=one)
    two = partial(q, k, v, mask=causal(at=0), first_key=4096)
    with pytest.raises(InputError, match="ends before key 2048, but these keys begin at 4096"):
        join(one, two)
    with pytest.raises(InputError, match="ends before key 6144, but these keys begin at 0"):
        join(two, one)
    long = partial(q, *(np.concatenate([x, x], 1) for x in (k, v)), mask=causal(at=0), first_key=2048)
    with pytest.raises(InputError, match="holds keys 2048 to 6144, 2 segments"):
        join(one, long)
    with pytest.raises(InputError, match="begins at key 1000, within a segment"):
        partial(q, k, v, mask=causal(at=0), first_key=1000)
    for wrong in (-2048, 2048.0, True, "2048"):
        with pytest.raises(InputError, match=r"first_key=.*is not the number of a key"):
            partial(q, k, v, mask=causal(at=0), first_key=wrong)
    with pytest.raises(ShapeError, match=r"before has o of shape \(2, 2048, 4\), this stretch \(2, 5, 4\)"):
        partial(q[:, :5], k, v, mask=causal(at=0), first_key=2048, before=one)
    with pytest.raises(DtypeError, match="before is of float32, this stretch of float64"):
        partial(*(x.astype(np.float64) for x in (q, k, v)), mask=causal(at=0), first_key=2048, before=one)
    with pytest.raises(ShapeError, match="does not fit"):
        join(one, partial(q[:1], k[:1], v[:1], mask=causal(at=0), first_key=2048))
    with pytest.raises(DtypeError, match="the part is of float64"):
        join(one, partial(*(x.astype(np.float64) for x in (q, k, v)), mask=causal(at=0), first_key=2048))
    with pytest.raises(InputError, match="threads=0"):
        partial(q, k, v, mask=causal(at=0), threads=0)


def test_a_mask_must_say_where_the_queries_stand():
    q = random(5, 4)
    for mask, score in (
        (causal(), ()),
        (full(), alibi(1)),
        (window(3), ()),
        (full() & dense(np.ones((1, 5), bool)), ()),
        (full(), bias(np.zeros((1, 5)))),
    ):
        with pytest.raises(InputError, match="does not say where these queries stand"):
            partial(q, q, q, mask=mask, score=score)
    with pytest.raises(InputError, match="aligns queries with all keys"):
        partial(q, q, q, mask=causal(align="end"))
    assert partial(q, q, q, mask=prefix(3)).stop == 5


def test_a_rule_without_a_value_is_found_in_the_stretch_where_it_is():
    table = np.zeros(SEGMENT + 5, np.float32)
    q, k = random(6, 4), random(SEGMENT + 20, 4)

    def short(score, batch, head, query, key):
        return score + table[key]

    one = partial(q, k[:SEGMENT], k[:SEGMENT], mask=full(at=0), score=short)
    with pytest.raises(TraceError, match="reads place 2053 of an axis"):
        one.then(k[SEGMENT:], k[SEGMENT:])


def test_a_finished_sum_names_what_gives_weights_and_gradients():
    done = partial(*(random(5, 4, seed=n) for n in range(3)), mask=full()).finish()
    with pytest.raises(InputError, match=r"weights\(q, k, mask=…, first_key=…"):
        _ = done.weights
    with pytest.raises(InputError, match="query_gradient"):
        done.backward(done.output)


def test_no_queries_and_no_keys():
    q, k = random(2, 3, 4), random(2, 0, 4)
    part = partial(q, k, k, mask=causal(at=0))
    assert (part.stop, part.segments) == (0, 0)
    assert not part.finish().output.any()
    none = partial(random(2, 0, 4), random(2, 7, 4), random(2, 7, 4), mask=causal(at=0))
    assert none.finish().output.shape == (2, 0, 4)
    assert math.prod(partial(random(0, 3, 4), random(0, 7, 4), random(0, 7, 4), mask=full()).o.shape) == 0


def test_sums_of_other_queries_or_rules_do_not_meet():
    q, k, v = (random(2, SEGMENT + 9, 4, seed=n) for n in range(3))
    keys, rest = (k[:, :SEGMENT], v[:, :SEGMENT]), (k[:, SEGMENT:], v[:, SEGMENT:])
    table = random(1, SEGMENT + 9)

    def later(at=5, **rules):
        rules = {"mask": causal(at=at) & dense(table > 0), "score": bias(table)} | rules
        return rules | {"first_key": SEGMENT}

    one = partial(q[:, :7], *keys, **(later() | {"first_key": 0}))
    other = table.copy()
    other[0, 0] += 3
    same = later(mask=dense(table > 0) & full(at=5) & causal(), scale=0.5)  # as 4 ** -0.5 is
    assert partial(q[:, :7], *rest, before=one, **same).stop == SEGMENT + 9
    for rules, words in (
        (later(at=6), "queries that begin at position 5, this call of 6"),
        (later(mask=causal(at=5)), "another mask, score or scale"),
        (later(mask=full(at=5) & dense(table > 0)), "another mask, score or scale"),
        (later(score=bias(other)), "another mask, score or scale"),
        (later(score=()), "another mask, score or scale"),
        (later(scale=1.0), "another mask, score or scale"),
    ):
        with pytest.raises(InputError, match=f"before .*{words}"):
            partial(q[:, :7], *rest, before=one, **rules)
        with pytest.raises(InputError, match=f"the total .*{words}"):
            join(one, partial(q[:, :7], *rest, **rules))


def test_a_partial_is_dense_whatever_it_is_made_of():
    q, k, v = (random(4, SEGMENT + 9, 16, seed=n) for n in range(3))
    one = partial(q[:, :32], k[:, :SEGMENT], v[:, :SEGMENT], mask=causal(at=0))
    wanted = one.then(k[:, SEGMENT:], v[:, SEGMENT:]).finish().output
    cut = replace(one, m=one.m[:, :8], l=one.l[:, :8], o=one.o[:, :8])
    assert same(cut.finish().output, one.finish().output[:, :8])
    for turned in (
        replace(one, o=np.asfortranarray(one.o)),
        replace(one, m=np.asfortranarray(one.m), l=one.l[::-1].copy()[::-1]),
        replace(one, m=one.m.astype(object).astype(np.float32)),
    ):
        assert same(turned.finish().output, one.finish().output)
        assert same(turned.then(k[:, SEGMENT:], v[:, SEGMENT:]).finish().output, wanted)
    for wrong, kind in (
        ({"m": one.m[:1]}, ShapeError),
        ({"l": one.l[0]}, ShapeError),
        ({"o": one.o[..., :0]}, ShapeError),
        ({"m": one.m.tolist()}, DtypeError),
        ({"m": one.m.astype(np.float64)}, DtypeError),
        ({"o": one.o.astype(">f4")}, DtypeError),
        ({"o": one.o.astype(np.float16)}, DtypeError),
    ):
        with pytest.raises(kind, match="m, l and o"):
            replace(one, **wrong)


def test_what_is_not_a_partial_is_refused_by_name():
    q, k, v = (random(5, 4, seed=n) for n in range(3))
    one = partial(q, k, v, mask=full())
    for wrong in (None, q, [one], one.finish()):
        with pytest.raises(InputError, match=r"part is a .*holds no partial sums"):
            join(one, wrong)
        with pytest.raises(InputError, match=r"total is a .*holds no partial sums"):
            join(wrong, one)
        if wrong is not None:
            with pytest.raises(InputError, match=r"before is a .*holds no partial sums"):
                partial(q, k, v, mask=full(), before=wrong)


def test_threads_are_those_that_were_asked_for(monkeypatch):
    counts = []
    real = run_kernel
    monkeypatch.setattr(carried, "allowed", lambda: 3)
    monkeypatch.setattr(carried, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(carried, "run_kernel", lambda *call: (counts.append(call[3]), real(*call))[1])
    q, k = random(8, 2000, 64), random(8, 40, 64)
    one, two = (partial(q, k, k, mask=full(), threads=threads) for threads in (1, None))
    assert counts[0] == 1
    assert counts[1] > 1
    counts.clear()
    for done in (lambda: one.finish(), lambda: two.finish(threads=1), lambda: two.finish()):
        done()
    assert counts == [1, 1, 3]
    counts.clear()
    whole, part = (replace(two, stop=SEGMENT), replace(two, first_key=SEGMENT, stop=SEGMENT + 40))
    join(whole, part, threads=1)
    join(whole, part)
    assert counts == [1, 3]
    for wrong in (lambda: one.finish(threads=0), lambda: join(whole, part, threads=0)):
        with pytest.raises(InputError, match="threads=0"):
            wrong()


def test_a_segments_sums_own_their_memory():
    q, k = random(1, 1, 16), random(1, 3 * SEGMENT, 16)
    for part in segments(q, k, k, mask=full()):
        for x in part.sums:
            base = x if x.base is None else x.base
            assert base.nbytes == x.nbytes


@pytest.mark.parametrize("count", [2, 30])
@pytest.mark.parametrize("in_place", [True, False])
def test_sums_go_where_they_are_told(count, in_place):
    q, k = random(2, count, 16), random(2, 2 * SEGMENT + 9, 16, seed=1)
    call = Call.of(q, causal(at=2 * SEGMENT), (), None, 1)
    before = stretch_of(call, k[:, :SEGMENT], k[:, :SEGMENT], 0).after(None)
    after = stretch_of(call, k[:, SEGMENT:], k[:, SEGMENT:], SEGMENT)
    wanted = after.after(before)
    into = before if in_place else before.copy()
    got = after.after(before, into=into)
    for x, y, z in zip(got, into, wanted, strict=True):
        assert x is y
        assert same(x, z)


def test_a_cache_that_let_keys_go_counts_its_own():
    q, x, cache = random(2, 2, 16), random(2, 5000, 16, seed=1), KeyValueCache(window=300)
    for start in range(0, 5000, 500):
        cache.append(x[:, start : start + 500], x[:, start : start + 500])
    done = partial(q, cache, mask=window(299, at=4998)).finish()
    whole = partial(q, x, x, mask=window(299, at=4998)).finish()
    assert same(done.output, whole.output)
    with pytest.raises(InputError, match=r"has let its first \d+ keys go and counts its own from 0: give first_key=0"):
        partial(q, cache, mask=window(299, at=4998), first_key=4096)


def test_positions_end_where_they_are_counted_right():
    last = (1 << 40) - SEGMENT
    q, k, v = (random(3, 16, seed=n) for n in range(3))
    wanted = attend(q, k, v, mask=full())
    assert same(partial(q, k, v, mask=causal(at=last + 2047), first_key=last).finish().output, wanted.output)
    for wrong in (1 << 40, 1 << 63):
        with pytest.raises(InputError, match=r"not the number of a key.*below 2⁴⁰"):
            partial(q, k, v, mask=full(), first_key=wrong)
        with pytest.raises(InputError, match=r"not the number of a key.*below 2⁴⁰"):
            query_gradient(q, k, v, wanted.output, wanted.lse, q, mask=full(), first_key=wrong)
        with pytest.raises(InputError, match=r"not the number of a key.*below 2⁴⁰"):
            weights(q, k, mask=full(), first_key=wrong, lse=wanted.lse)
