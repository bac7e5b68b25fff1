"""Pages beyond the first approach: their numbers are the definition's, and what they say of them is so."""

import json

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from clearhead import causal, full, prefix, window
from clearhead.cli import main
from clearhead.definition import textbook
from clearhead.errors import FileError, InputError, ShapeError
from clearhead.explain import (
    command,
    cost,
    explain,
    html,
    latex,
    layer,
    markdown,
    matrices,
    positions,
    quiz,
    roles,
    text,
    what_if,
)
from clearhead.explain.blocks import Table
from clearhead.explain.lessons import LESSONS
from clearhead.explain.steps import vector_length
from clearhead.explain.story import worked_page
from clearhead.rules.masks import visible
from clearhead.rules.named import named_score
from clearhead.wording import number

SENTENCE = "the river bank was wet because the river had flooded"


def told(page) -> str:
    console = Console(width=80, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        text.print_blocks(page, console)
    return " ".join(captured.get().split())


def operands(n=5, m=7, d=4, dv=3):
    rng = np.random.default_rng(n * m)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.normal(size=(m, dv))


# queries, keys and values


@pytest.mark.parametrize(
    ("n", "m", "mask"), [(5, 7, None), (6, 6, None), (6, 6, full()), (3, 1, None), (6, 6, window(1))]
)
@pytest.mark.parametrize("scale", [None, 1.0])
def test_other_operands_are_the_definitions_attention(n, m, mask, scale):
    q, k, v = operands(n, m)
    i = n // 2
    e = explain(q, position=i, keys=k, values=v, scale=scale, mask=mask)
    used = mask or (causal() if n == m else full())
    y = textbook.attention(q, k, v, mask=used, scale=scale)
    np.testing.assert_allclose(e.output, y[i], rtol=1e-12)
    np.testing.assert_allclose(e.scores, textbook.scores(q, k, scale or 0.5)[i, : e.reach], rtol=1e-12)
    assert e.items == tuple(np.flatnonzero(visible(used, n, m)[i]))
    assert (e.itself is None) == (n != m)
    written = told(worked_page(e, matrix=True))
    for j in e.items:
        assert number(e.scores[j]) in written
        assert number(e.weights[j]) in written
    assert all(number(x) in written for x in e.output)
    assert ("÷ √4" in written) == (scale is None)
    assert ("Cross-attention" in written) == (n != m)
    for render in (markdown.render, latex.render, html.render):
        assert render(worked_page(e))


def test_a_query_may_be_zero_or_at_right_angles_to_keys():
    e = explain([[2.0, 0.0]], keys=[[0.0, 3.0], [0.0, 0.0], [1.0, 0.0]], values=np.eye(3))
    assert (e.angles, e.blank) == ((0,), (1,))
    written = told(worked_page(e))
    assert "the key of “k0” is at right angles to the query of “q0”" in written
    assert "The key of “k1” is the zero vector" in written
    e = explain(np.zeros((1, 2)), keys=np.ones((2, 2)), values=np.ones((2, 1)))
    assert "the query of “q0” is the zero vector" in told(worked_page(e))


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"keys": np.ones((2, 2))}, InputError, "values are missing"),
        ({"keys": np.ones((2, 3)), "values": np.ones((2, 1))}, ShapeError, "as many dims"),
        ({"keys": np.ones((2, 2)), "values": np.ones((3, 1))}, ShapeError, "one value"),
        ({"keys": [[np.nan, 1.0]], "values": [[1.0]]}, InputError, "Key 0 holds nan at dim 0"),
    ],
)
def test_operands_that_do_not_fit_are_refused(more, error, said):
    with pytest.raises(error, match=said):
        explain(np.ones((2, 2)), **more)


def test_another_text_is_looked_at(capsys):
    from clearhead.words import load

    assert (
        main(["explain", "the black dog", "--attends-to", "the white cat and a small animal", "--format", "json"]) == 0
    )
    read = json.loads(capsys.readouterr().out)
    q, k = load().embed("the black dog").x, load().embed("the white cat and a small animal").x
    np.testing.assert_allclose(read["weights"], textbook.softmax(q @ k.T, np.ones((3, 7), bool))[2], rtol=1e-9)
    assert read["tokens"] == ["the", "white", "cat", "and", "a", "small", "animal"]
    assert main(["explain", "the dog", "--attends-to", "a cat", "--matrix"]) == 0
    assert "Cross-attention" in capsys.readouterr().out


# the designed scene


def test_in_the_scene_pronouns_find_what_they_stand_for():
    for pronoun, who in (("he", "Tom"), ("it", "ball")):
        e = roles.scene(pronoun)
        assert e.tokens[int(e.row.argmax())] == who
        assert e.output.argmax() == roles.ENTITIES.index(who)
        assert e.row.max() > 0.75
    alike = explain(roles.scene_vectors(), roles.TOKENS, "he")
    assert alike.tokens[int(alike.row.argmax())] == "he"  # the first approach finds what is alike: itself
    assert "asks for a man" in told(roles.preface(roles.scene()))


# what if


@pytest.mark.parametrize("name", what_if.WHAT_IF)
@pytest.mark.parametrize("which", ["plain", "roles", "cross", "masked", "hidden"])
def test_alterations_are_what_they_are_called(name, which):
    q, k, v = operands(6, 6, 3, 3)
    e = {
        "plain": lambda: explain(q, position=3),
        "roles": lambda: explain(q, position=3, keys=k, values=v),
        "cross": lambda: explain(q, position=3, keys=k[:4], values=v[:4]),
        "masked": lambda: explain(q, position=3, mask=prefix(2)),
        "hidden": lambda: roles.scene("he"),
    }[which]()
    of = e.operands
    scores = of.queries[e.position] @ of.keys.T * of.scale
    seen = e.seen
    expected = {
        "no-values": lambda: e.row,
        "values=keys": lambda: e.row,
        "keys=values": lambda: soft(of.queries[e.position] @ of.values.T * of.scale, seen),
        "no-softmax": lambda: np.where(seen, scores, 0),
        "scores-as-weights": lambda: np.where(seen, scores, 0) / np.where(seen, scores, 0).sum(),
        "no-scale": lambda: soft(scores / of.scale, seen),
        "divide-by-d": lambda: soft(scores / of.scale / of.queries.shape[1], seen),
        "mask-after-softmax": lambda: np.where(seen, soft(scores, np.ones_like(seen)), 0),
        "no-mask": lambda: soft(scores, np.ones_like(seen)),
    }[name]()
    other = what_if.alter(e, name)
    np.testing.assert_allclose(other.weights, expected, rtol=1e-10, atol=1e-14)
    values = of.keys if name == "values=keys" else of.values
    if name == "no-values":
        assert other.output.tolist() == e.row[list(e.items)].tolist()
    else:
        np.testing.assert_allclose(other.output, expected @ values, rtol=1e-10, atol=1e-14)
    written = told(what_if.what_if_page(e, name, 6))
    assert number(vector_length(other.output)) in written
    changed = np.abs(expected - e.row).max() > 1e-12 or (name == "values=keys" and of.keys is not of.values)
    assert ("Nothing changes" in written) == (not changed and name != "no-values")
    read = json.loads(what_if.what_if_json(e, name))
    assert read["altered"]["weights"] == other.weights.tolist()
    for render in (markdown.render, latex.render, html.render):
        assert render(what_if.what_if_page(e, name, 6))


def soft(s, seen):
    e = np.where(seen, np.exp(s - s[seen].max()), 0)
    return e / e.sum()


def test_what_if_refuses_what_it_cannot_compare():
    with pytest.raises(InputError, match="no-softmax"):
        what_if.alter(explain(np.eye(2)), "nothing")
    with pytest.raises(InputError, match="no --score"):
        what_if.alter(explain(np.eye(2), score=lambda score, batch, head, query, key: score), "no-mask")
    q, k, v = operands()
    with pytest.raises(InputError, match="4 numbers cannot be compared with values of 3"):
        what_if.alter(explain(q, keys=k, values=v), "keys=values")


# matrices


@pytest.mark.parametrize("names", [("W_Q", "W_K", "W_V", "W_O"), ("query", "key", "value", "output")])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("output", [True, False])
def test_a_layer_of_own_matrices_is_the_layers(tmp_path, names, heads, output):
    from clearhead.layers import SelfAttention

    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4))
    held = [rng.normal(size=shape) for shape in ((4, 6), (4, 6), (4, 8), (8, 5))][: 3 + output]
    np.savez(tmp_path / "w.npz", **dict(zip(names, held, strict=False)))
    read = matrices.read_matrices(tmp_path / "w.npz")
    done = layer.work_out_layer(explain(x, position=3), heads, read)
    np.testing.assert_allclose(done.y, SelfAttention(*held, heads=heads)(x)[3], rtol=1e-9)
    written = told(layer.layer_page(done))
    assert "W^Q (4, 6)" in written
    assert number(done.y[0]) in written


def test_wrong_matrices_are_refused(tmp_path):
    x = np.ones((2, 3))
    for held, said in (
        ({"W_Q": x, "W_K": x}, "no W\\^V"),
        ({"W_Q": x, "W_K": x.T, "W_V": x}, "do not fit"),
        ({"W_Q": x, "W_K": x, "W_V": x, "W_O": x.T[:1]}, "as many rows"),
        ({"W_Q": x[0], "W_K": x, "W_V": x}, "two axes"),
    ):
        np.savez(tmp_path / "w.npz", **held)
        with pytest.raises((FileError, ShapeError), match=said):
            matrices.read_matrices(tmp_path / "w.npz")
    np.savez(tmp_path / "w.npz", W_Q=x, W_K=x, W_V=x)
    with pytest.raises(ShapeError, match="give matrices of 4 rows"):
        layer.work_out_layer(explain(np.ones((2, 4))), 1, matrices.read_matrices(tmp_path / "w.npz"))
    with pytest.raises(FileError, match=r"neither \.npz"):
        matrices.read_matrices(tmp_path / "w.csv")
    with pytest.raises(FileError, match="no q"):
        matrices.read_qkv(tmp_path / "w.npz")


def test_q_k_and_v_come_from_a_file(capsys, tmp_path):
    q, k, v = operands()
    np.savez(tmp_path / "qkv.npz", q=q, k=k, v=v)
    assert main(["explain", "--qkv", str(tmp_path / "qkv.npz"), "--position", "1", "--format", "json"]) == 0
    read = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(read["output"], textbook.attention(q, k, v, mask=full())[1], rtol=1e-12)


# lessons


@pytest.mark.parametrize(
    "mask", [causal(), full(), window(2), window(3, 1), window(None, 2), prefix(3), causal() & ~prefix(1)]
)
@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_pairs_are_counted(mask, n):
    assert cost.visible_pairs(mask, n) == visible(mask, n, n).sum()


def test_cost_beside_recurrence_is_counted():
    for n, d in ((3, 2), (10, 5)):
        attention = sum(2 * d for i in range(n) for _ in range(i + 1))
        assert cost.recurrence_counts(n, d) == {
            "attention": attention, "recurrent": 2 * n * d * d,
            "attention_more": 2 * d * (n + 1), "recurrent_more": 2 * d * d,
        }  # fmt: skip
    written = told(LESSONS["cost"](explain(np.ones((6, 4)), mask=window(2))).page)
    assert "Pairs under window:2" in written
    assert "at most 3 items" in written


def test_reversing_the_past_changes_nothing_without_positions():
    x = np.random.default_rng(0).normal(size=(7, 6))
    rows = LESSONS["positions"](explain(x)).rows
    plain = np.array([row["plain"] for row in rows])
    np.testing.assert_allclose(plain[:, 0], plain[:, 1], rtol=1e-12)
    for name in ("ALiBi", "rotary"):
        a = np.array([row[name] for row in rows])
        assert np.abs(a[:, 0] - a[:, 1]).max() > 1e-3
        assert a.sum(axis=0) == pytest.approx([1, 1])
    e = explain(x, score=lambda score, batch, head, query, key: score - 0.5 * (query - key))
    np.testing.assert_allclose([row["ALiBi"][0] for row in rows], e.weights, rtol=1e-12)


def test_a_rotary_score_depends_on_distance_alone():
    x = np.random.default_rng(1).normal(size=(1, 6))
    turned = positions.rotate_positions(np.repeat(x, 9, axis=0))
    s = turned @ turned.T
    for gap in range(9):
        np.testing.assert_allclose(np.diagonal(s, gap), s[0, gap], rtol=1e-12)


def test_the_quiz_knows_its_answers(capsys, monkeypatch):
    e = explain(np.random.default_rng(0).normal(size=(4, 3)), ["a", "small", "red", "dog"])
    asked = quiz.questions(e)
    said: list[str] = []
    answers = iter([question.answer for question in asked])
    assert quiz.ask_questions(e, lambda prompt: next(answers), said.append) == len(asked)
    assert said.count("") == len(asked)
    assert quiz.ask_questions(e, lambda prompt: "z", said.append) == 0
    assert quiz.ask_questions(e, lambda prompt: None, said.append) == 0
    added = explain([*e.x[:-1].tolist(), np.cross(e.x[3], [1.0, 0, 0]).tolist(), e.x[3].tolist()])
    assert number(added.weights[3]) in asked[1].options[1]
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("CAB\nb\n"))
    assert main(["explain", SENTENCE, "--quiz"]) == 0
    assert "2 of 5 right." in capsys.readouterr().out


# together


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--roles", SENTENCE], "several things"),
        (["--steps", "cost", "--layer", SENTENCE], "different pages"),
        (["--what-if", "no-mask", "--matrix", SENTENCE], "different pages"),
        (["--what-if", "never", SENTENCE], "no-softmax"),
        (["--roles", "--steps", "order"], "--steps"),
        (["--roles", "--score", "alibi"], "--roles"),
        (["--attends-to", "a cat"], "Nothing to explain"),
        (["a dog", "--attends-to", "a cat", "--score", "alibi"], "--attends-to"),
        (["a dog", "--weights", "nowhere.npz"], "nowhere.npz"),
        (["--qkv", "nowhere.npz"], "nowhere.npz"),
        (["--qkv", "nowhere.csv"], "neither .npz"),
    ],
)
def test_what_cannot_be_asked_together_is_refused(capsys, words, said):
    assert main(["explain", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html", "json"])
@pytest.mark.parametrize(
    "words",
    [
        ["--roles"],
        ["--roles", "--what-if", "no-scale"],
        [SENTENCE, "--steps", "positions"],
        [SENTENCE, "--steps", "cost", "--mask", "window:3"],
    ],
)
def test_every_page_in_every_format(capsys, form, words):
    assert main(["explain", *words, "--format", form]) == 0
    assert len(capsys.readouterr().out) > 300


def test_html_trusts_no_token():
    made = html.render(worked_page(explain([[1.0], [2.0]], ["<script>", "b"]), matrix=True))
    assert "<script>" not in made
    assert "&lt;script&gt;" in made


def test_what_python_explains_shows_itself():
    import clearhead.explain as room

    e = room.explain(SENTENCE, position="bank")
    assert e.token == "bank"  # noqa: S105
    assert "2  Softmax" in str(e)
    assert e._repr_markdown_().startswith("# Self-attention")
    assert "<h2>" in e._repr_html_()
    plain = room.explain([[1, 0], [0, 1]], ["a", "b"], 0)
    assert plain.token == "a"  # noqa: S105
    assert plain.output.tolist() == [1, 0]
    assert max(map(len, str(e).splitlines())) <= 80


# what is said of odd inputs


def test_a_quiz_is_a_sheet_in_other_formats(capsys):
    assert main(["explain", SENTENCE, "--quiz", "--format", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [one["answer"] for one in made["questions"]] == ["cab", "b", "b", "a", "a"]
    assert main(["explain", SENTENCE, "--quiz", "--format", "markdown"]) == 0
    assert "## Answers" in capsys.readouterr().out


def test_the_rounding_of_a_right_angle_is_nowhere():
    x = [[0.1, 0.1, 0.3], [0.9, 0.0, -0.3], [0.2, 0.2, 0.1]]
    assert np.dot(*x[:2]) != 0
    twice = named_score("scale:2", heads=1)
    for page in (
        worked_page(explain(x, position=1, score=[twice])),
        what_if.what_if_page(explain(x, position=1), "no-softmax", 2),
        layer.layer_page(layer.work_out_layer(explain(x, position=1), 1)),
    ):
        assert "e-" not in told(page)


def test_after_rules_a_score_has_another_name():
    written = told(worked_page(explain([[1.0, 0.5], [0.5, 1.0]], score=[named_score("scale:2", heads=1)])))
    assert written.count("item score") == 2  # before the rule and after it, side by side
    assert "item s exp(s) weight" in written


def test_the_zero_vector_says_why_no_word_is_near(capsys):
    assert main(["explain", "the море"]) == 0
    assert "points nowhere, so no words are nearest to it" in " ".join(capsys.readouterr().out.split())


def test_a_layer_with_one_head_has_not_several():
    written = told(layer.layer_page(layer.work_out_layer(explain(np.eye(3)), 1)))
    assert "one head here" in written
    assert "several heads at once" not in written


def test_accents_that_are_dropped_are_told_of(capsys):
    assert main(["explain", "gün"]) == 0
    assert "Read without accents" in capsys.readouterr().out


def test_latex_keeps_rows_that_see_nothing():
    hidden = ~window(0)
    made = latex.render(worked_page(explain([[1.0], [2.0]], mask=hidden & causal()), 1, True))
    assert made.count(r"$\cdot$ & $\cdot$") == 1


def test_lessons_tell_programs_of_masks_recurrence_and_notes(capsys):
    assert main(["explain", "the café", "--steps", "cost", "--mask", "window:1", "--format", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["mask"] == "window:1"
    assert made["masked"][1] == {"of": "a sentence", "length": 20, "pairs": 39}
    assert made["recurrence"][0]["recurrent"] == 2 * 2 * 64 * 64
    assert "café" in made["notes"][0]


def test_another_formula_that_exceeds_a_float64_is_refused():
    with pytest.raises(InputError, match="exceed a float64"):
        what_if.what_if_page(explain([[1e153, 1e153]]), "no-softmax", 2)


def test_json_names_who_asks_in_cross_attention(capsys):
    assert main(["explain", "the dog", "--attends-to", "a white cat", "--format", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["asking"], made["tokens"]) == (["the", "dog"], ["a", "white", "cat"])
    assert (len(made["queries"]), len(made["keys"]), made["scale"]) == (2, 3, 1.0)


@pytest.mark.parametrize(
    "asked", [{"layer": True, "heads": 8}, *({"steps": name} for name in LESSONS), {"model": "tiny"}]
)
def test_a_table_that_is_too_wide_is_shown_in_parts(asked):
    page = command.requested_page(command.ExplainRequest(text=(SENTENCE,), **asked))
    for block in page.blocks(2):
        if isinstance(block, Table):
            made = text.terminal_table(block, 57)
            assert not isinstance(made, Text), block.columns
            shown = text.render([block], 60)
            assert all(cell in shown for row in block.rows for cell in row if isinstance(cell, str) and " " not in cell)
