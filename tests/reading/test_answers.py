"""Every answer about a reading against matrices in float64: rows, columns, tiles, the sheet, and what is refused."""

import contextlib
import json

import numpy as np
import pytest

from clearhead import causal, full, weights, window
from clearhead.definition import weights as definition
from clearhead.errors import InputError, TrustError
from clearhead.reading.answers import MOST_NAMES_BYTES, MOST_NUMBERS, QUESTIONS, Reader, as_bytes
from clearhead.reading.readings import Agreement, Reading, Sees, Stack, StackLayer
from clearhead.reading.sources import from_layers, from_small_model, from_vectors, readings_of
from clearhead.reading.tiles import TILE, deepest
from tests.arrays import random

HEADS, QUERIES = 3, 700
ABOUT = {"reading": 0, "part": "attention", "layer": 4, "heads": [0, 1, 2], "join": "one", "measure": "weight"}
JOINED = {"one": lambda x: x[0], "mean": lambda x: x.mean(0), "max": lambda x: x.max(0)}


def with_values(reading, values):
    """A reading whose layers have values, too."""
    stack = reading.stack()
    layers = {
        n: StackLayer(n, one.heads, one.key_heads, one.queries, one.keys, one.sees, one.find_weights, lambda: values)
        for n, one in stack.layers.items()
    }
    return Reading(reading.name, {stack.name: Stack(stack.name, layers, stack.names, stack.steps, ids=stack.ids)})


@pytest.fixture(scope="module")
def cases():
    """Readers of square and ragged matrices, and what their weights (heads, queries, keys) and values are."""
    found = {}
    for name, queries, keys, mask in (
        ("causal", QUERIES, QUERIES, causal()), ("later", 300, QUERIES, causal(align="end")),
        ("window", QUERIES, QUERIES, window(50)), ("cross", 90, 513, full()),
    ):  # fmt: skip
        q, k, v = random(HEADS, queries, 8), random(HEADS, keys, 8, seed=1), random(HEADS, keys, 5, seed=2)
        exact = definition.weights(q.astype(np.float64), k.astype(np.float64), mask=mask)
        tokens = [f"t{n % 19}" for n in range(keys)]
        reading = from_layers({4: weights(2 * q, k, mask=mask)}, tokens, name=name)
        exact = definition.weights(2.0 * q.astype(np.float64), k.astype(np.float64), mask=mask)
        found[name] = Reader([with_values(reading, v)]), exact, np.linalg.norm(v.astype(np.float64), axis=-1)
    return found


def ask(reader, what, **changes):
    """An answer about the layer."""
    return reader.answer(what, ABOUT | changes)


def complete_line(reader, **changes):
    """A line's answer, once it is ready, and all its values."""
    for _ in range(100):
        answer = ask(reader, "line", **{"without": False} | changes)
        if answer.values is not None:
            return answer.fields, answer.values
    raise AssertionError("a column is never ready")


KINDS = ["causal", "later", "window", "cross"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("join", ["one", "mean", "max"])
@pytest.mark.parametrize("measure", ["weight", "value"])
def test_rows_and_columns_are_those_of_the_matrix(cases, kind, join, measure):
    reader, exact, lengths = cases[kind]
    whole = JOINED[join](exact * (lengths[:, None] if measure == "value" else 1))
    for by, matrix in (("row", whole), ("column", whole.T)):
        for at in (0, 1, len(matrix) // 2, len(matrix) - 1):
            fields, values = complete_line(reader, join=join, measure=measure, by=by, at=at)
            np.testing.assert_allclose(values, matrix[at], atol=2e-6)
            assert fields["sum"] == pytest.approx(matrix[at].sum(), rel=1e-5)
            assert fields["length"] == len(matrix[at])


@pytest.mark.parametrize("kind", KINDS)
def test_the_heaviest_come_first_and_say_how_much_they_carry(cases, kind):
    reader, exact, _ = cases[kind]
    for without in (False, True):
        row = exact[1, -1].copy()
        if without:
            row[0] = 0
        fields, _ = complete_line(reader, heads=[1], by="row", at=len(exact[1]) - 1, without=without)
        assert fields["first"] == pytest.approx(exact[1, -1, 0], abs=1e-6)
        order = np.argsort(-row, kind="stable")[:200]
        order = order[row[order] > 0]
        assert [j for j, _, _ in fields["top"]] == order.tolist()
        np.testing.assert_allclose([w for _, w, _ in fields["top"]], row[order], atol=1e-6)
        shares = np.cumsum(row[order]) / row.sum()
        np.testing.assert_allclose([share for _, _, share in fields["top"]], shares, atol=1e-5)
        assert fields["rest"]["count"] == (row > 0).sum() - len(order)
        assert fields["rest"]["share"] == pytest.approx(1 - shares[-1], abs=1e-5)
        for share, count in fields["carriers"].items():
            running = np.cumsum(np.sort(row)[::-1]) / row.sum()
            assert count == int((running < float(share) / 100 - 1e-6).sum()) + 1
        seen = np.flatnonzero(exact[1, -1])
        assert fields["seen"] == [seen[0], seen[-1] + 1]
        size = -(-len(row) // 400)
        for n, (most, mean) in enumerate(zip(fields["bins"]["max"], fields["bins"]["mean"], strict=True)):
            part = row[n * size : (n + 1) * size]
            assert (most, mean) == (pytest.approx(part.max(), rel=1e-3, abs=1e-7), pytest.approx(part.mean(), rel=1e-3))


def pooled(matrix, how, cells, row, column):
    """A tile by brute force."""
    part = matrix[row * TILE * cells : (row + 1) * TILE * cells, column * TILE * cells : (column + 1) * TILE * cells]
    gather = np.maximum if how == "max" else np.add
    tile, sizes = np.zeros((TILE, TILE)), np.ones_like(part)
    down, across = (np.arange(0, size, cells) for size in part.shape)
    pixels, counts = (
        g.reduceat(g.reduceat(x, down, axis=0), across, axis=1) for g, x in ((gather, part), (np.add, sizes))
    )
    tile[: len(down), : len(across)] = pixels / counts if how == "mean" else pixels
    return tile


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["max", "sum", "mean"])
@pytest.mark.parametrize(
    ("join", "measure"), [("one", "weight"), ("mean", "weight"), ("max", "weight"), ("max", "value")]
)
def test_tiles_are_pooled_squares_at_every_zoom(cases, kind, how, join, measure):
    reader, exact, lengths = cases[kind]
    whole = JOINED[join](exact * (lengths[:, None] if measure == "value" else 1))
    for zoom in range(deepest(max(whole.shape)) + 1):
        cells = 1 << (deepest(max(whole.shape)) - zoom)
        for row, column in ((0, 0), (whole.shape[0] // (TILE * cells), whole.shape[1] // (TILE * cells) // 2)):
            expected = pooled(whole, how, cells, row, column)
            place = {"z": zoom, "r": row, "c": column, "how": how, "join": join, "measure": measure}
            at_once = ask(reader, "tile", **place, **{"from": 0, "to": TILE}).values.reshape(TILE, TILE)
            np.testing.assert_allclose(at_once, expected, atol=3e-6 * cells * cells)
            strips = [ask(reader, "tile", **place, **{"from": n, "to": n + 37 if n else 37}) for n in range(0, 219, 37)]
            for n, strip in enumerate(strips):
                assert (strip.values.reshape(-1, TILE) == at_once[37 * n : 37 * n + 37]).all()


def test_rings_are_round_the_cells_most_above_an_even_share(cases):
    reader, exact, _ = cases["causal"]
    lift = exact[0] * np.arange(1, QUERIES + 1)[:, None]
    np.fill_diagonal(lift, 0)
    lift[:, 0] = 0
    zoom = deepest(QUERIES)
    found = [
        ring
        for r in range(3)
        for c in range(3)
        for ring in ask(reader, "tile", z=zoom, r=r, c=c, how="max", **{"from": 0, "to": TILE}).fields["rings"]
    ]
    best = max(found, key=lambda ring: ring.lift)
    assert (best.row, best.column) == np.unravel_index(np.argmax(lift), lift.shape)
    assert (best.weight, best.lift) == (
        pytest.approx(exact[0, best.row, best.column], abs=1e-6),
        pytest.approx(lift.max(), rel=1e-4),
    )
    [coarse, *_] = ask(reader, "tile", z=0, r=0, c=0, how="max", **{"from": 0, "to": TILE}).fields["rings"]
    assert coarse.lift >= 0.3 * lift.max()
    assert not ask(reader, "tile", z=0, r=0, c=0, how="sum", **{"from": 0, "to": TILE}).fields["rings"]


def test_the_sheet_holds_what_each_head_does(cases):
    reader, exact, _ = cases["causal"]
    answer = ask(reader, "sheet", heads=[2, 0])
    assert [head["head"] for head in answer.fields["heads"]] == [2, 0]
    thumbs = answer.values.reshape(2, *answer.fields["size"])
    labels = np.array([n % 19 for n in range(QUERIES)])
    i, j = np.indices((QUERIES, QUERIES))
    for thumb, head in zip(thumbs, answer.fields["heads"], strict=True):
        x = exact[head["head"]]
        edges = np.arange(29) * QUERIES // 28
        for a in range(28):
            for b in range(28):
                square = x[edges[a] : edges[a + 1], edges[b] : edges[b + 1]]
                assert thumb[a, b] == pytest.approx(square.max(), abs=2e-6)
        entropy = -np.where(x > 0, x * np.log(np.where(x > 0, x, 1)), 0).sum(-1)
        induction = (labels[i] == np.roll(labels, 1)[j]) & (j > 0) & (j <= i)
        off_first = x.copy()
        off_first[:, 0] = 0
        for name, expected in (
            ("entropy", entropy.mean()), ("effective", np.exp(entropy).mean()), ("first", x[:, 0].mean()),
            ("distance", (x * (i - j)).sum(-1).mean()), ("within", np.where(i - j < 64, x, 0).sum(-1).mean()),
            ("off_first", off_first.max()), ("previous", x.diagonal(-1).sum() / QUERIES),
            ("duplicate", np.where((labels[i] == labels[j]) & (j < i), x, 0).sum(-1).mean()),
            ("induction", np.where(induction, x, 0).sum(-1).mean()),
        ):  # fmt: skip
            assert head[name] == pytest.approx(expected, rel=1e-4), name
        assert len(head["spark"]) <= 40
        assert head["spark"][0] == pytest.approx(np.exp(entropy[:18]).mean(), rel=1e-3)


def test_cross_attention_has_no_matches_but_the_rest(cases):
    reader, exact, _ = cases["cross"]
    [head] = ask(reader, "sheet", heads=[1]).fields["heads"]
    assert head["induction"] is head["previous"] is head["duplicate"] is None
    assert head["first"] == pytest.approx(exact[1, :, 0].mean(), rel=1e-4)


def test_a_pair_and_the_heaviest_over_all_heads(cases):
    reader, exact, _ = cases["causal"]
    found = ask(reader, "pair", row=650, column=17).fields
    assert found["count"] == HEADS
    order = np.argsort(-exact[:, 650, 17])
    assert [(layer, head) for layer, head, _ in found["heads"]] == [(4, n) for n in order]
    for by, line in (("row", exact[:, 650]), ("column", exact[:, :, 650])):
        found = ask(reader, "heaviest", by=by, at=650).fields["found"]
        expected = sorted(((x, h, n) for h, one in enumerate(line) for n, x in enumerate(one) if x), reverse=True)[:40]
        np.testing.assert_allclose([one[4] for one in found], [x for x, _, _ in expected], atol=1e-6)
        _, head, row, column, _ = found[0]
        assert (head, column if by == "row" else row) == expected[0][1:]


def test_names_come_in_pages_and_long_ones_are_cut():
    tokens = ["<script>", "\n", "", "é\ud800", "x" * 10_000, *(f"word{n}" for n in range(60_000))]
    w = weights(np.zeros((1, len(tokens), 1), np.float32), np.zeros((1, len(tokens), 1), np.float32))
    reader = Reader([from_layers({4: w}, tokens, name="long")])
    found, start = [], 0
    while start < len(tokens):
        answer = ask(reader, "names", side="keys", **{"from": start})
        assert len(json.dumps(answer.fields, ensure_ascii=False).encode("utf-8", "replace")) < MOST_NAMES_BYTES + 100
        found += answer.fields["names"]
        start = answer.fields["to"]
    assert found[:4] == tokens[:4]
    assert found[4] == "x" * 200 + "…"
    assert found[5:] == tokens[5:]
    assert as_bytes(ask(reader, "line", by="row", at=9, without=False))


def test_long_lines_come_in_pieces():
    n = MOST_NUMBERS + 100
    q = random(1, n, 2)
    reader = Reader([from_layers({4: weights(q, q)}, None, name="long")])
    first, second = (
        ask(reader, "line", by="row", at=n - 1, without=False, **{"from": start}) for start in (0, MOST_NUMBERS)
    )
    assert (len(first.values), len(second.values)) == (MOST_NUMBERS, 100)
    assert float(np.concatenate([first.values, second.values]).sum(dtype=np.float64)) == pytest.approx(1, abs=1e-6)
    assert len(as_bytes(first)) < 300_000


def test_a_column_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr("clearhead.reading.answers.MOST_PAIRS_AT_ONCE", 200 * QUERIES)
    q = random(1, QUERIES, 4)
    reader = Reader([from_layers({4: weights(q, q)}, None, name="slow")])
    told = [ask(reader, "line", by="column", at=3, without=False).fields.get("done") for _ in range(4)]
    assert told == [200, 400, 600, None]


def test_what_is_asked_wrongly_is_refused(cases):
    reader, _, _ = cases["causal"]
    line, tile = {"by": "row", "at": 0}, {"how": "max", "z": 0, "r": 0, "c": 0, "from": 0, "to": 9}
    for what, changes, said in (
        ("line", line | {"at": 700}, "query 700 is not one of the 700"), ("line", line | {"at": -1}, "query -1"),
        ("line", {"by": "column", "at": 1e300}, "at is 1e"), ("line", {"by": "all", "at": 0}, "by is 'all'"),
        ("line", line | {"at": True}, "at is True"), ("line", {"by": "row"}, "at is missing"),
        ("line", line | {"heads": []}, "heads is"), ("line", line | {"heads": [9]}, "no head 9"),
        ("line", line | {"layer": 1}, "no layer 1"), ("line", line | {"part": "x"}, "no part x"),
        ("line", line | {"reading": 1}, "no reading 1"), ("nothing", {}, "not a known question"),
        ("tile", tile | {"z": 9}, "no such tile"), ("tile", tile | {"from": 9}, "no such tile"),
        ("tile", tile | {"how": "median"}, "how is 'median'"), ("picture", {}, "--image"),
        ("again", {"text": "a"}, "cannot read another text"), ("names", {"side": "values", "from": 0}, "side is"),
        ("pair", {"row": 0, "column": 9000}, "key 9000"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            ask(reader, what, **changes)


def test_tiles_far_outside_are_empty(cases):
    reader, _, _ = cases["causal"]
    found = ask(reader, "tile", how="max", z=1, r=10**12, c=0, **{"from": 0, "to": TILE})
    assert not found.values.any()
    assert not found.fields["rings"]


def test_a_layer_that_does_not_agree_is_said_not_shown():
    def fails():
        raise TrustError("layer 4, head 0: differs")

    layer = StackLayer(4, (0,), (0,), 2, 2, Sees(None, 0, 0), fails, find_agreement=fails)
    reader = Reader([Reading("odd", {"attention": Stack("attention", {4: layer}, lambda layer, side: ["a", "b"])})])
    said = ask(reader, "trust").fields
    assert (said["failed"], said["checked"], said["said"]) == (True, False, "layer 4, head 0: differs")
    with pytest.raises(TrustError):
        ask(reader, "line", by="row", at=0)
    good = StackLayer(4, (0,), (0,), 2, 2, Sees(None, 0, 0), fails, find_agreement=lambda: Agreement(3, 1e-6, 1e-4))
    reader = Reader([Reading("good", {"attention": Stack("attention", {4: good}, lambda layer, side: ["a", "b"])})])
    said = ask(reader, "trust").fields
    assert (said["failed"], said["checked"], said["rows"], said["difference"]) == (False, True, 3, 1e-6)
    with pytest.raises(InputError, match="values of layer 4 were not kept"):
        ask(reader, "line", by="row", at=0, measure="value")


def test_the_small_model_agrees_with_itself_and_reads_again():
    reader = Reader([from_small_model("The river was wide. The boat was small.")])
    about = {"reading": 0, "part": "decoder", "layer": 1}
    said = reader.answer("trust", about).fields
    assert said["checked"]
    assert said["difference"] <= said["allowed"]
    told = reader.answer("again", {"reading": 0, "text": "Another text."}).fields
    assert told["reading"] == 1
    assert len(told["readings"]) == 2
    names = reader.answer("names", about | {"reading": 1, "side": "queries", "from": 0}).fields["names"]
    assert "".join(names) == "<s>Another text."
    for text, why in (("", "no text"), (" \n", "no text"), ("x" * 3_000_000, "characters")):
        with pytest.raises(InputError, match=why):
            reader.answer("again", {"reading": 0, "text": text})
    long = from_small_model("word " * 1000)
    assert len(long.tokens) == 256
    assert "are left out" in long.notes[0]


def test_what_can_be_read():
    [reading] = readings_of(from_vectors("the river bank"))
    assert reading.tokens == ("the", "river", "bank")
    one = random(1, 5, 2)
    for given, tokens in ((weights(one, one), list("abcde")), (weights(one[0], one[0]), None)):
        [reading] = readings_of(given, tokens)
        assert list(reading.tokens) == (tokens or ["0", "1", "2", "3", "4"])
    with pytest.raises(InputError, match="3 tokens do not name 5 keys"):
        readings_of(weights(one, one), list("abc"))
    with pytest.raises(InputError, match="not weights"):
        readings_of(5)
    [single] = readings_of(weights(one[None], one[None]))
    assert single.title == ""
    batch = random(2, 1, 5, 2)
    both = readings_of(weights(batch, batch))
    assert [reading.title for reading in both] == ["sequence 0", "sequence 1"]
    for reading, x in zip(both, batch, strict=True):
        assert np.array_equal(reading.stack().head(0, 0).row(4), weights(x, x)[0].row(4))
    assert readings_of("The river")[0].tokens[-1] == "ver"


def test_every_question_is_answered_or_refused_whatever_is_asked(cases):
    reader, _, _ = cases["window"]
    odd = [None, -1, 10**30, 1.5, "x", [], {}, True, [[]], float("nan"), "\ud800"]
    for what in QUESTIONS:
        for name in (
            "reading",
            "part",
            "layer",
            "heads",
            "join",
            "measure",
            "by",
            "at",
            "side",
            "from",
            "z",
            "text",
            "row",
        ):
            for value in odd:
                asked = ABOUT | {"by": "row", "at": 3, "side": "keys", "from": 0, "to": 9, "z": 0, "r": 0, "c": 0}
                asked |= {"how": "max", "row": 1, "column": 0, "text": "a", name: value}
                with contextlib.suppress(InputError):
                    reader.answer(what, asked)
