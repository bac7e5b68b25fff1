"""Learn's answers in the browser beside Python's: the same words, the same numbers."""

import json
import random
from collections.abc import Callable
from typing import Any

import demo_pages
import numpy as np
import pytest

from clearhead.errors import ClearheadError
from clearhead.explain.what_if import WHAT_IF
from clearhead.view import page
from clearhead.view.answers import answer
from clearhead.words import load
from tests.demo.conftest import Ask

SENTENCES = (
    "The cat sat on the mat",
    "a red apple and a green pear",
    "the river flooded the bank and the money bank",
    "Don’t  panic: it's 3 o'clock, 1,820.5 fathoms, 20th!",
    "Grüße aus Köln, naïve café, İstanbul ŒUVRE",
    "I ❤️ море 👩‍🚀 🇩🇪 😀😀 ©",
    "doomscrolling unputdownable laptoplike stoniest blorpy zzxqj Supercalifragilistic",
    "stopped boxes wolves ate banking happiest dont were were",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen",
    "the",
    "the the the",
    "😀",
    "٣ apples ﬁne ｆｕｌｌ soft\u00adhyphen zero\u200bwidth \u200djoined\u200d",
    "x " * 40,
    "",
    " … — !",
    "'quoted' \"twice\" \\",
    "a" * 2001,
    "\ufeffthe cat",
    "a\0b the cat",
)
WEIGHTS = 3e-6  # the small model computes in float32


@pytest.fixture(scope="module")
def ask_learn(ask_page: Callable[..., Ask]) -> Ask:
    """Asks the Learn screen's answers."""
    return ask_page(page.LEARN, demo_pages.LEARN)


def python(what: str, about: dict[str, Any]) -> Any:
    """Python's answer, as JSON holds it, or the reason why there is none."""
    try:
        return json.loads(json.dumps(answer(what, {name: str(value) for name, value in about.items()})))
    except ClearheadError as error:
        return {"refused": str(error)}


def same(ours: Any, theirs: Any, error: float, path: str = "") -> None:
    """Check that two answers agree: texts letter by letter, numbers up to an error."""
    if isinstance(theirs, dict):
        assert sorted(ours) == sorted(theirs), path
        for name in theirs:
            same(ours[name], theirs[name], error, f"{path}.{name}")
    elif isinstance(theirs, np.ndarray):
        assert np.allclose(ours, theirs, rtol=error, atol=error), path
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), path
        if theirs and isinstance(theirs[0], float | int):
            assert np.allclose(ours, theirs, rtol=error, atol=error), path
        else:
            for n, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                same(a, b, error, f"{path}[{n}]")
    elif isinstance(theirs, float):
        assert np.isclose(ours, theirs, rtol=error, atol=error), path
    else:
        assert ours == theirs, path


def check(ask: Ask, what: str, asked: list[dict[str, Any]], error: float) -> None:
    """Check all answers to some questions of a kind."""
    for about, ours in zip(asked, ask(what, asked), strict=True):
        same(ours, python(what, about), error, f"{what} {about}")


def test_sentences_have_python_s_vectors_and_notes(ask_learn: Ask) -> None:
    check(ask_learn, "sentence", [{"text": text} for text in SENTENCES], 1e-12)


def test_words_that_nobody_knows_are_composed_alike(ask_learn: Ask) -> None:
    drawn, words = random.Random(7), load().words  # noqa: S311
    ends = ("", "s", "ed", "ing", "ness", "like", "'s", "ies", "est", "é", "99", "nt", "zz")
    starts = ("", "", "un", "re", "mega", "ß", "x")

    def word() -> str:
        middle = drawn.choice(words)[: drawn.randint(2, 12)] + drawn.choice(("", "", drawn.choice(words)))
        return drawn.choice(starts) + middle + drawn.choice(ends)

    check(ask_learn, "sentence", [{"text": " ".join(word() for _ in range(8))} for _ in range(80)], 1e-12)


def test_learned_heads_do_what_they_do_in_python(ask_learn: Ask) -> None:
    texts = (*SENTENCES[:7], *SENTENCES[-2:])  # a blank for JavaScript alone, and no sign
    check(ask_learn, "learned", [{"text": text} for text in texts], WEIGHTS)
    heads = [{"text": SENTENCES[0], "head": head} for head in ("0.0", "3.3", "2.1", "9.9")]
    check(ask_learn, "head", heads, 3e-5)


def problems() -> list[dict[str, Any]]:
    """Problems as the page sends them: first approach and with roles, scales, windows, zeros, right angles, repeats."""
    drawn = np.random.default_rng(3)
    found: list[dict[str, Any]] = []
    for n in (1, 2, 3, 5, 12):
        for d in (1, 2, 3, 64):
            x = drawn.standard_normal((3, n, d)).round(2) * drawn.choice([0.1, 1, 5])
            if drawn.random() < 0.3:
                x[:, 0] = 0
            names = drawn.choice(["a", "b", " ", "the", "x₁", "\t"], n).tolist()
            about: dict[str, Any] = {
                "names": names, "q": x[0].tolist(), "row": int(drawn.integers(n)), "scale": 1, "window": None
            }  # fmt: skip
            found += [about, {**about, "scale": 1 / np.sqrt(d), "k": x[1].tolist(), "v": x[2].tolist(), "window": 3}]
    right = {"names": ["a", "b"], "q": [[1, 0], [0, 1]], "row": 1, "scale": 1, "window": None}
    long = {**right, "q": [[30, 0], [0, 30]]}
    return [*found, right, long, {**right, "q": [[1e200, 0], [1e200, 0]]}, {**right, "q": [[1e60, 0], [1, 1e60]]}]


def test_other_formulas_have_python_s_consequences(ask_learn: Ask) -> None:
    asked = [{"problem": json.dumps(about), "formula": name} for about in problems() for name in WHAT_IF]
    check(ask_learn, "consequence", asked, 0)


def test_questions_and_costs_are_python_s(ask_learn: Ask) -> None:
    plain = [{"problem": json.dumps(about)} for about in problems() if "k" not in about]
    check(ask_learn, "questions", plain, 0)
    check(ask_learn, "costs", [{"dim": d} for d in (1, 2, 8, 64, 65, 0)], 0)
