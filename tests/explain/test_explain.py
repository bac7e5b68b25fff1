"""The worked steps hold the definition's own numbers, and every format tells them honestly."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.cells import cell_len
from rich.console import Console

from clearhead.definition import textbook
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.explain import json as as_json
from clearhead.explain import latex, markdown, text
from clearhead.explain.cost import attention_counts
from clearhead.explain.lessons import LESSONS
from clearhead.explain.steps import LARGEST_SQUARE, explain_vectors
from clearhead.explain.story import worked_page
from clearhead.rules.masks import causal, documents, full, prefix, visible, window
from clearhead.rules.named import name_of_mask, name_of_score
from clearhead.rules.scores import alibi, scale, softcap
from clearhead.wording import number

WORDS = ["the", "river", "bank", "was", "wet", "because", "the", "river", "had", "flooded"]
VALUES = st.floats(-20, 20) | st.sampled_from([0.0, -0.0, 1.0, 1e-300, 30.0])
MATRICES = st.tuples(st.integers(1, 6), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=VALUES)
)


def sentence(dim: int = 5) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(len(WORDS), dim))


def as_text(page, width: int = 80) -> str:
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        text.print_blocks(page, console)
    return captured.get()


def all_formats(e, matrix: bool = False) -> dict[str, str]:
    page = worked_page(e, matrix=matrix)
    return {
        "text": as_text(page),
        "markdown": markdown.render(page),
        "latex": latex.render(page),
        "json": as_json.render(e, matrix),
    }


# numbers


@given(MATRICES, st.data())
def test_every_number_is_the_definitions(x, data):
    n = len(x)
    i = data.draw(st.integers(-n, n - 1))
    e = explain_vectors(x, position=i)
    seen = visible(causal(), n, n)
    assert e.position == i % n
    np.testing.assert_array_equal(e.square.scores, textbook.scores(x, x))
    np.testing.assert_array_equal(e.square.weights, textbook.softmax(textbook.scores(x, x), seen))
    bound = 1e-13 * (np.abs(x) @ np.abs(x[i]))[: e.position + 1]  # one row's products may be summed in another order
    assert (np.abs(e.scores - textbook.scores(x, x)[i, : e.position + 1]) <= bound).all()
    close = 1e-12 * (1 + np.abs(e.scores).max())
    np.testing.assert_allclose(e.weights, e.square.weights[i, : e.position + 1], rtol=close, atol=1e-300)
    np.testing.assert_allclose(e.output, textbook.self_attention(x)[i], rtol=close, atol=close * np.abs(x).max())
    rounding = 1e-15 * (10 + np.abs(e.scores).max())  # of exp's argument, which the definition shifts
    np.testing.assert_allclose(e.exponentials / e.sum, e.weights, rtol=rounding, atol=0)
    np.testing.assert_allclose(np.exp(e.scores - e.shift), e.exponentials, rtol=1e-15)


def test_exponentials_are_plain_until_they_overflow():
    e = explain_vectors([[26.0], [26.0]])
    assert e.shift == 0
    assert e.exponentials[0] == np.exp(676.0)
    e = explain_vectors([[27.0], [26.0], [27.0]])
    assert e.shift == 729
    assert e.exponentials.tolist() == [1.0, np.exp(702.0 - 729.0), 1.0]
    for written in all_formats(e).values():
        assert "729" in written
    assert "too large for a float64" in as_text(worked_page(e))


@given(MATRICES)
def test_json_reads_back_as_the_very_same_numbers(x):
    e = explain_vectors(x)
    read = json.loads(as_json.render(e, matrix=True))
    assert read["tokens"] == list(e.tokens)
    assert read["position"] == e.position
    assert read["sum"] == e.sum
    for key in ("scores", "exponentials", "weights", "output"):
        np.testing.assert_array_equal(np.array(read[key]), getattr(e, key))
    for key, whole in (("scores", e.square.scores), ("weights", e.square.weights)):
        for i, row in enumerate(read["matrix"][key]):
            assert row[: i + 1] == whole[i, : i + 1].tolist()
            assert row[i + 1 :] == [None] * (len(x) - i - 1)


def test_what_is_explained_cannot_be_changed():
    x = sentence()
    e = explain_vectors(x)
    x[:] = 0
    assert e.x.any()
    with pytest.raises(ValueError, match="read-only"):
        e.weights[0] = 1


# score 0 is not weight 0


def test_an_item_at_right_angles_is_pointed_out_with_its_share():
    e = explain_vectors([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0]], ["one", "two", "three"])
    assert e.zeros == e.angles == (0,)
    assert e.weights[0] == math.exp(0) / (math.exp(0) + math.exp(2) + math.exp(4)) > 0
    for form, written in all_formats(e).items():
        if form != "json":
            told = " ".join(written.split())
            assert "Score 0 is not weight 0" in told
            assert "exp(0) = 1" in told
            assert f"{e.weights[0]:.4f}" in told
    assert "“one” is at right angles to “three”, and yet has weight" in " ".join(as_text(worked_page(e)).split())
    assert json.loads(as_json.render(e))["at_right_angles"] == [0]


def test_a_zero_vector_shares_equally_and_has_no_direction():
    e = explain_vectors([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    assert e.weights.tolist() == [1 / 3] * 3
    assert e.similarity is None
    told = " ".join(as_text(worked_page(e)).split())
    assert "is the zero vector, so every score is 0 and all weights are equal: exp(0) = 1, and 1 ÷ 3 = 0.3333" in told
    assert "no direction" in told


def test_without_a_zero_score_it_is_told_what_one_would_get():
    e = explain_vectors([[1.0, 0.5], [1.0, 0.0]])
    assert not e.zeros
    told = " ".join(as_text(worked_page(e)).split())
    assert f"exp(0) = 1, and 1 ÷ ({e.sum:.4f} + 1) = {1 / (e.sum + 1):.4f}" in told


@pytest.mark.parametrize("sentence_of", [["the"], ["the", "the"]])
def test_the_share_of_an_item_that_would_be_added_counts_that_item(sentence_of):
    e = explain_vectors([[0.3, 0.0]] * len(sentence_of), sentence_of)
    added = explain_vectors([[0.0, 1.0], *e.x.tolist()])
    assert number(added.weights[0]) in " ".join(as_text(worked_page(e)).split())
    assert added.angles == (0,)


def test_rounding_is_not_taken_for_an_angle_nor_an_angle_for_rounding():
    assert explain_vectors([[0.1, 0.2], [0.2, -0.1]]).angles == (0,)
    assert explain_vectors([[0.1, 0.3], [3.0, -1.0]]).angles == (0,)
    assert explain_vectors([[1e-300, 0.0], [1e-300, 0.0]]).angles == ()
    assert explain_vectors([[1e-13, 0.0], [1.0, 0.0]]).angles == ()
    assert explain_vectors([[1e10, 0.0], [1e-3, 1e10]]).angles == ()
    assert "right angles to “x1”, and yet" not in " ".join(
        as_text(worked_page(explain_vectors([[1e-300], [1e-300]]))).split()
    )


def test_with_a_rule_right_angles_are_those_of_the_vectors():
    minus = lambda score, batch, head, query, key: score - 1  # noqa: E731
    plus = lambda score, batch, head, query, key: score + 5  # noqa: E731
    told = " ".join(as_text(worked_page(explain_vectors([[1.0, 0.0], [1.0, 0.0]], score=minus))).split())
    assert "nothing that “x1” sees is at right angles to it" in told
    e = explain_vectors([[1.0, 0.0], [0.0, 1.0]], score=plus)
    told = " ".join(as_text(worked_page(e)).split())
    assert "“x0” is at right angles to “x1”; what weight that makes, the rules decide" in told
    assert f"score 5.0000, weight {number(e.weights[0])}" in told


def test_a_zero_vector_among_the_seen_is_told_apart_from_a_right_angle():
    e = explain_vectors([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    assert (e.blank, e.angles) == ((0,), (1,))
    told = " ".join(as_text(worked_page(e)).split())
    assert "“x1” is at right angles to “x2”" in told
    assert "“x0” is the zero vector, whose dot product with anything is 0" in told


def test_an_item_that_sees_nothing_has_no_scores_to_show():
    e = explain_vectors(sentence(), WORDS, mask=causal() & ~causal())
    told = as_text(worked_page(e))
    assert "sees nothing" in told
    assert "█" not in told
    assert "Softmax" not in told


def test_exponentials_too_small_for_a_float64_are_shifted_too():
    e = explain_vectors([[-30.0], [30.0]], mask=causal() & ~window(0))
    assert (e.shift, e.exponentials.tolist(), e.weights.tolist()) == (-900, [1, 0], [1, 0])
    told = " ".join(as_text(worked_page(e)).split())
    assert "too small for a float64" in told
    assert "would get nearly all the weight" in told
    hidden = explain_vectors(np.ones((2, 2)), score=lambda score, batch, head, query, key: score - np.inf)
    assert "The rules make every score of “x1” −∞" in " ".join(as_text(worked_page(hidden)).split())


def test_a_weight_lost_to_underflow_is_called_so():
    e = explain_vectors([[-40.0], [40.0]])
    assert e.weights[0] == 0
    assert "underflow" in as_text(worked_page(e))
    assert "underflow" not in as_text(worked_page(explain_vectors([[1.0], [2.0]])))


def test_many_hidden_weights_are_dots_among_shades():
    e = explain_vectors(np.eye(30))
    rows = as_text(worked_page(e, matrix=True)).split("All rows")[1].splitlines()
    drawn = [row.split()[2] for row in rows if re.match(r" +\d+ +x\d+ ", row)]
    assert drawn == ["▒" * i + "█" + "·" * (29 - i) for i in range(30)]


def test_hidden_weights_are_dots_and_not_zeros():
    e = explain_vectors(sentence(), WORDS)
    rows = as_text(worked_page(e, matrix=True)).split("All rows")[1].splitlines()
    first = next(row for row in rows if row.split()[:2] == ["0", "the"])
    assert first.split()[2:] == ["1.00"] + ["·"] * 9
    assert r" & $\cdot$" in all_formats(e, matrix=True)["latex"]
    assert " | · |" in all_formats(e, matrix=True)["markdown"]


def test_a_small_weight_never_looks_like_zero():
    assert text.triangle_number(0.0049).strip() == "<.01"
    e = explain_vectors([[1.0, -7.0], [0.0, 2.0]])
    assert 0 < e.weights[0] < 1e-7
    assert f"{e.weights[0]:.1e}" in as_text(worked_page(e))


# formats


@pytest.mark.parametrize("position", [0, 4, -1])
def test_every_format_names_every_token(position):
    for form, written in all_formats(explain_vectors(sentence(), WORDS, position)).items():
        for word in WORDS:
            assert word in written, (form, word)


@given(st.text(st.characters(codec="utf-8"), max_size=12))
def test_no_token_can_break_a_page(token):
    e = explain_vectors([[1.0, 0.0], [1.0, 1.0]], [token, "end"])
    formats = all_formats(e, matrix=True)
    assert json.loads(formats["json"])["tokens"][0] == token
    assert "\x1b" not in formats["text"] + formats["markdown"] + formats["latex"]
    for line in formats["markdown"].splitlines():
        if line.startswith("| 0 |"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (5, 6, 7)


@pytest.mark.parametrize("width", [20, 30, 44, 60, 80, 100])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width):
    e = explain_vectors(sentence(64) / 8, WORDS)
    page = worked_page(e, text.dims_that_fit(width, e.tokens))
    written = as_text(page, width)
    assert max(map(cell_len, written.splitlines())) <= width
    for value in (*e.scores, *e.exponentials, *e.weights):
        assert re.search(rf"(?<![\d.]){re.escape(f'{value:.4f}')}(?!\d)", written)


def test_long_inputs_show_the_heaviest_and_account_for_the_rest():
    x = np.random.default_rng(1).normal(size=(300, 8))
    x[5] = 0
    e = explain_vectors(x, position=250)
    written = as_text(worked_page(e))
    assert len(written.splitlines()) < 200
    assert "x250 (itself)" in written
    assert re.search(r"^ *5 +x5 +0 *$", written, re.M)
    more = re.search(r"… (\d+) more +([\d.]+) +([\d.e-]+)", written)
    rows = re.findall(r"^ +\d+ +x\d+ (?:\(itself\))? +-?[\d.e-]+ +[\d.]+ +([\d.e-]+)", written, re.M)
    assert len(rows) + int(more[1]) == 251
    assert math.isclose(sum(map(float, rows)) + float(more[3]), 1, abs_tol=2e-3)


@pytest.mark.parametrize(("position", "named"), [(0, 5), (100, 9), (298, 6), (299, 5)])
def test_a_title_of_many_items_points_at_the_right_one(position, named):
    e = explain_vectors(np.ones((300, 1)), position=position)
    made = worked_page(e)[0]
    assert made.items[made.chosen] == f"x{position}"
    assert len([item for item in made.items if item != "…"]) == named
    assert (made.items[0] == "…", made.items[-1] == "…") == (position > 4, position < 295)


def test_meaning_is_told_by_nearest_words_where_there_are_any():
    def nearest(vector):
        return [("river", 0.9), ("lake", 0.5)] if vector[0] == 1 else [("lake", 0.8), ("sea", 0.4)]

    e = explain_vectors([[0.0, 1.0], [1.0, 1.0]], nearest=nearest)
    assert e.before == (("river", 0.9), ("lake", 0.5))
    assert e.after == (("lake", 0.8), ("sea", 0.4))
    assert "sea  (new)" in as_text(worked_page(e))
    assert "lake  (new)" not in as_text(worked_page(e))
    assert explain_vectors([[0.0, 0.0]], nearest=nearest).before == ()


# lessons


@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_has_rows_and_a_page_in_every_format(name):
    e = explain_vectors(sentence(), WORDS)
    lesson = LESSONS[name](e)
    read = json.loads(as_json.render_lesson(name, lesson, e))
    assert read["steps"] == name
    assert read["tokens"] == WORDS
    assert read["rows"]
    for written in (as_text(lesson.page), markdown.render(lesson.page), latex.render(lesson.page)):
        assert all(word in written for word in WORDS)


def test_cost_counts_what_the_definition_does():
    for n in (1, 2, 10):
        pairs = int(visible(causal(), n, n).sum())
        made = attention_counts(n, 3)
        assert made["pairs"] == made["exponentials"] == pairs
        assert made["multiply_adds"] == 2 * 3 * pairs
        assert made["matrix_bytes"] == np.zeros((n, n), np.float32).nbytes
        assert made["vectors_bytes"] == 2 * np.zeros((n, 3), np.float32).nbytes
    assert [row["length"] for row in LESSONS["cost"](explain_vectors(sentence())).rows] == [
        10,
        128,
        2**10,
        2**12,
        2**14,
        2**16,
        2**20,
    ]


@pytest.mark.parametrize(("dim", "heads"), [(64, 8), (12, 4), (6, 2), (5, 1), (1, 1)])
def test_shapes_fit_and_are_those_of_numpy(dim, heads):
    n = len(WORDS)
    rows = LESSONS["shapes"](explain_vectors(np.ones((n, dim)) / dim)).rows
    results = [row["here"].split("→")[1].strip(" ()").split(",") for row in rows]
    names = [f"{row['form']} {row['step']}" for row in rows]
    sizes = {name: tuple(map(int, result)) for name, result in zip(names, results, strict=True)}
    x = np.ones((n, dim))
    q = (x @ np.ones((dim, dim))).reshape(n, heads, dim // heads).swapaxes(0, 1)
    assert sizes["first approach scores"] == (x @ x.T).shape
    assert sizes["first approach weighted sum"] == (x @ x.T @ x).shape
    assert sizes["transformer queries"] == q.shape
    assert sizes["transformer scores"] == (q @ q.swapaxes(1, 2)).shape
    assert sizes["transformer output"] == x.shape


def test_order_tells_what_would_be_left_of_the_first_weight():
    x = sentence()
    late = np.exp(x[0] @ x[0]) / np.exp(x @ x[0]).sum()
    assert f"{late:.4f}" in as_text(LESSONS["order"](explain_vectors(x)).page)


# positions and wrong inputs


def test_a_position_is_a_number_from_either_end_or_a_word():
    x = sentence()
    assert explain_vectors(x, WORDS).position == 9
    assert explain_vectors(x, WORDS, -10).position == 0
    assert explain_vectors(x, WORDS, "river").position == 7
    assert explain_vectors(x, WORDS, "THE").position == 6


@pytest.mark.parametrize("position", [10, -11, "lake", ""])
def test_a_position_that_is_none_is_refused(position):
    with pytest.raises(InputError, match=f"Position {re.escape(repr(position))} is"):
        explain_vectors(sentence(), WORDS, position)


@pytest.mark.parametrize(
    ("x", "error", "said"),
    [
        ([1.0, 2.0], ShapeError, r"\(2,\)"),
        ([[1.0, 2.0], [3.0]], ShapeError, "of different lengths"),
        (np.ones((2, 2, 2)), ShapeError, r"\(2, 2, 2\)"),
        (np.ones((0, 3)), ShapeError, r"\(0, 3\)"),
        (np.ones((3, 0)), ShapeError, r"\(3, 0\)"),
        ([[1j]], DtypeError, "complex128"),
        ([["a"]], DtypeError, "<U1"),
        ([[1.0], [np.nan]], InputError, "Vector 1 holds nan at dim 0"),
        ([[1.0, np.inf]], InputError, "Vector 0 holds inf at dim 1"),
        ([[1e200]], InputError, "scale them down"),
    ],
)
def test_vectors_that_cannot_be_explained_are_refused(x, error, said):
    with pytest.raises(error, match=said):
        explain_vectors(x)


def test_a_row_of_a_book_is_explained_and_its_square_is_refused():
    e = explain_vectors(np.ones((LARGEST_SQUARE + 1, 1)))
    assert e.weights[0] == pytest.approx(1 / (LARGEST_SQUARE + 1))
    assert len(as_text(worked_page(e)).splitlines()) < 200
    with pytest.raises(InputError, match=f"{LARGEST_SQUARE + 1} rows"):
        worked_page(e, matrix=True)


def test_tokens_must_be_as_many_as_vectors():
    with pytest.raises(ShapeError, match="1 tokens for 2 vectors"):
        explain_vectors([[1.0], [2.0]], ["one"])


# rules and layers

RULED = {
    "window": (window(2), ()),
    "full": (full(), [softcap(2.0)]),
    "documents": (documents([4, 6]), [alibi(1), scale(0.5)]),
    "function": (causal() & ~prefix(1), [lambda score, batch, head, query, key: score * (key - query + 3)]),
    "nothing": (causal() & ~causal(), [scale(2.0)]),
}


@pytest.mark.parametrize("name", RULED)
@pytest.mark.parametrize("position", [0, 3, 9])
def test_rules_are_worked_as_the_definition_has_them(name, position):
    (mask, rules), x = RULED[name], sentence()
    e = explain_vectors(x, WORDS, position, mask=mask, score=rules)
    s, seen = textbook.ruled_scores(x, x, (), mask, rules, 1.0)
    np.testing.assert_array_equal(e.seen, seen[position])
    np.testing.assert_array_equal(e.square.seen, seen)
    np.testing.assert_array_equal(e.square.scores, s)
    np.testing.assert_array_equal(e.square.weights, textbook.softmax(s, seen))
    np.testing.assert_allclose(e.row, textbook.softmax(s, seen)[position], rtol=1e-12)
    y = textbook.attention(x, x, x, mask=mask, score=rules, scale=1.0)[position]
    np.testing.assert_allclose(e.output, y, rtol=1e-12, atol=1e-14)
    assert e.items == tuple(np.flatnonzero(seen[position]))
    assert len(e.stages) == len(rules) + 1
    told = as_text(worked_page(e, matrix=True))
    for rule in e.rules if e.items else ():
        assert name_of_score(rule) in told
    for j in e.items:
        for stage in e.stages:
            assert number(stage[j]) in told
    assert ("sees nothing" in told) == (not e.items)
    assert f"mask {name_of_mask(mask)}" in " ".join(told.split())
    made = json.loads(as_json.render(e, matrix=True))
    assert [k for k, weight in enumerate(made["weights"]) if weight is not None] == list(e.items)
    assert [[x is not None for x in row] for row in made["matrix"]["weights"]] == seen.tolist()
    for rule, stage in zip(made["rules"], e.stages[1:], strict=True):
        shown = [x for x, seen in zip(stage[: e.reach].tolist(), e.seen, strict=False) if seen]
        assert [x for x in rule["scores"] if x is not None] == shown
    for render in (markdown.render, latex.render):
        assert render(worked_page(e, matrix=True))


def test_a_rule_may_hide_by_minus_infinity_but_not_break_softmax():
    x = np.zeros((3, 2))
    e = explain_vectors(x, score=lambda score, batch, head, query, key: np.where(key == 0, -np.inf, score))
    assert e.weights.tolist() == [0, 0.5, 0.5]
    assert "made the score of “x0” −∞" in as_text(worked_page(e))
    assert json.loads(as_json.render(e))["scores"] == ["-inf", 0, 0]
    with pytest.raises(InputError, match="items 2 and 2"):
        explain_vectors(x, score=lambda score, batch, head, query, key: score / (query - key))


def test_plain_causal_pages_have_no_word_of_rules():
    told = as_text(worked_page(explain_vectors(sentence(), WORDS), matrix=True))
    assert "Mask" not in told
    assert "Rule" not in told
    made = json.loads(as_json.render(explain_vectors(sentence(), WORDS)))
    assert (made["mask"], made["rules"], made["seen"]) == ("causal", [], list(range(10)))


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("position", [0, 4, 9])
def test_a_layer_is_attention_in_heads_and_scaled(heads, position):
    from clearhead.explain import layer

    x = sentence(8)
    worked = layer.work_out_layer(explain_vectors(x, WORDS, position), heads)
    q = x.reshape(len(x), heads, 8 // heads).swapaxes(0, 1)
    y = textbook.attention(q, q, q)[:, position].reshape(-1)
    np.testing.assert_allclose(worked.y, y, rtol=1e-12)
    np.testing.assert_allclose(worked.weights.sum(axis=1), 1)
    told = as_text(layer.layer_page(worked))
    for shown in (*worked.scaled.ravel(), *worked.weights.ravel()):
        assert number(shown) in told
    made = json.loads(layer.layer_json(worked))
    assert made["weights"] == worked.weights.tolist()
    for render in (markdown.render, latex.render):
        assert render(layer.layer_page(worked))


def test_heads_that_do_not_divide_the_dims_are_refused():
    from clearhead.explain import layer

    with pytest.raises(InputError, match="--heads 3"):
        layer.work_out_layer(explain_vectors(sentence(8), WORDS), 3)
