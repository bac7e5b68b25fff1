"""Every number that the page prints, read back from it, against the Python definition: random inputs × switches."""

from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from clearhead.definition import textbook
from clearhead.explain.positions import rotate_positions
from clearhead.rules.masks import full, visible, window
from tests.view.printed import number, share
from tests.view.watched_page import Watched

DESIGNED = {"wq": [[0, -3], [0, 0]], "wk": [[0, 0], [0, 1]], "wv": [[1, 0], [0, 1]]}
FORMULAS = (
    "right", "no-softmax", "scores-as-weights", "no-values", "values=keys", "keys=values", "no-scale", "divide-by-d",
    "mask-after-softmax", "no-mask",
)  # fmt: skip
PLAIN = ("no-softmax", "scores-as-weights")
READ = """stages => {
  const text = all => [...document.querySelectorAll(all)].map(e => e.textContent);
  const found = {};
  for (const stage of stages) {
    document.querySelector(`[data-do=show][data-with=${stage}]`).click();
    found[stage] = [...document.querySelectorAll('.tri .trow:not(.hrow)')].map(row =>
      [...row.querySelectorAll('[role=gridcell]')].map(e => e.classList.contains('later') ? null : e.textContent));
  }
  found.ledger = [...document.querySelectorAll('.ledger .lrow:not(.lwords)')].map(row =>
    [...row.querySelectorAll('.lc, .lt')].map(e => e.textContent));
  found.lines = text('.lines .sum');
  found.answer = text('.answer')[0];
  return found;
}"""


def problem(rng: np.random.Generator) -> dict[str, Any]:
    """Random vectors and switches; typed decimals, so that ties are common, zeros, repeats, large and tiny ones."""
    n, d = int(rng.integers(1, 13)), int(rng.choice([2, 2, 2, 3, 4, 6, 8]))
    scale = rng.choice([1, 1, 1, 3, 0.01, 30])
    x = (rng.standard_normal((n, d)) * scale).round(int(rng.integers(0, 4)))
    if rng.random() < 0.2:
        x[rng.integers(n)] = 0
    if rng.random() < 0.2:
        x[rng.integers(n)] = x[rng.integers(n)]
    if rng.random() < 0.05:
        x[rng.integers(n)] *= 1000
    row = int(rng.integers(n))
    asked: dict[str, Any] = {
        "vectors": x, "row": row, "column": int(rng.integers(row + 1)), "told": True, "step": 0,
        "scaled": bool(rng.random() < 0.3), "positions": bool(rng.random() < 0.3),
        "window": 3 if rng.random() < 0.3 else None, "formula": str(rng.choice(FORMULAS)),
    }  # fmt: skip
    if d == 2:
        asked["matrices"] = str(rng.choice(["none", "none", "designed", "own"]))
        if asked["matrices"] == "own":
            asked |= {name: rng.standard_normal((2, 2)).round(1) for name in DESIGNED}
    heads = [h for h in (1, 2, 4) if d % h == 0]
    asked["heads"] = int(rng.choice(heads))
    asked["head"] = int(rng.integers(asked["heads"]))
    return asked


def state(asked: dict[str, Any]) -> str:
    """An address that asks for it."""
    told = {}
    for key, value in asked.items():
        if isinstance(value, np.ndarray):
            told[key] = ";".join(",".join(repr(float(x)) for x in row) for row in value)
        elif value is not None:
            told[key] = str(value).lower() if isinstance(value, bool) else value
    return urlencode(told)


def expected(asked: dict[str, Any]) -> dict[str, Any]:
    """The same by the definition."""
    x = asked["vectors"]
    n, d = x.shape
    matrices = {"none": None, "designed": DESIGNED, "own": asked}[asked.get("matrices", "none")]
    q, k, v = (x, x, x) if matrices is None else (x @ np.asarray(matrices[name], float) for name in DESIGNED)
    if asked["heads"] > 1:
        size = d // asked["heads"]
        q, k, v = (y[:, asked["head"] * size : (asked["head"] + 1) * size] for y in (q, k, v))
    if asked["positions"]:
        q, k = rotate_positions(q), rotate_positions(k)
    d, formula = q.shape[1], asked["formula"]
    scale = {"no-scale": 1.0, "divide-by-d": 1 / d}.get(formula, d**-0.5 if asked["scaled"] else 1.0)
    mask = full() if formula == "no-mask" else window(None if asked["window"] is None else asked["window"] - 1, 0)
    seen = visible(mask, n, n, lead=(1,)).reshape(n, n)
    found = v if formula == "keys=values" else k
    s = textbook.scores(q, found, scale)
    s[np.abs(s) <= 1e-14 * textbook.scores(np.abs(q), np.abs(found), scale)] = 0  # what cancels but for rounding
    over = np.ones((n, n), bool) if formula == "mask-after-softmax" else seen
    e = textbook.exponentials(s, over) if (np.abs(s[over]).max(initial=0) > 700) else np.where(over, np.exp(s), 0)
    weights = textbook.softmax(s, over)
    visible_scores = np.where(seen, s, 0)
    if formula == "mask-after-softmax":
        weights = np.where(seen, weights, 0)
    if formula == "no-softmax":
        weights = visible_scores
    if formula == "scores-as-weights":
        total, size_ = visible_scores.sum(1, keepdims=True), np.abs(visible_scores).sum(1, keepdims=True)
        nothing = np.abs(total) <= 1e-12 * size_
        weights = np.where(nothing, 0, visible_scores / np.where(nothing, 1, total))
    y = textbook.weighted_sum(weights, k if formula == "values=keys" else v, seen)
    return {
        "scores": s,
        "exponentials": e,
        "weights": weights,
        "seen": seen,
        "over": over,
        "y": y,
        "plain": formula in PLAIN,
    }


def check(found: dict[str, Any], asked: dict[str, Any]) -> int:
    """Compare everything; how many numbers were compared."""
    right, n, i, j = expected(asked), len(asked["vectors"]), asked["row"], asked["column"]
    narrow, count = n > 8, 0
    told = {
        "scores": lambda x, thin: number(x, thin), "exponentials": lambda x, thin: number(x, thin),
        "weights": lambda x, thin: number(x, thin) if right["plain"] else share(x, thin),
    }  # fmt: skip
    shifted = np.abs(right["scores"][right["over"]]).max(initial=0) > 700
    for stage, text in told.items():
        if stage == "exponentials" and shifted:
            continue  # whether a row's largest score is taken off is told row by row
        for a in range(n):
            wanted = [text(right[stage][a, b], narrow) if right["seen"][a, b] else None for b in range(n)]
            assert found[stage][a] == wanted, (stage, a)
            count += sum(x is not None for x in wanted)
    for stage, line in zip(told, found["ledger"], strict=True):
        if stage == "exponentials" and shifted:
            continue
        wanted = [told[stage](right[stage][i, b], narrow) if right["seen"][i, b] else "not seen·" for b in range(n)]
        assert line[:n] == wanted, stage
        count += n
    if asked["formula"] == "scores-as-weights" and not right["weights"][i].any():
        assert not found["lines"], "weights that cannot be"
    elif right["seen"][i, j] and not shifted:
        total = right["exponentials"][i][right["over"][i]].sum()
        assert found["lines"][2].endswith(f"={number(total)}")
        assert found["lines"][1] == f"e{number(right['scores'][i, j])}={number(right['exponentials'][i, j])}"
        if asked["formula"] != "no-values":
            head = ",".join(number(x) for x in right["y"][i][:4])
            assert f"=({head}" in found["lines"][4]
            count += 2 + min(4, right["y"].shape[1])
    return count


@pytest.mark.parametrize("part", range(4))
def test_every_number_is_the_definitions(watched: Watched, part: int) -> None:
    page, count = watched.open("step=0&vectors=1,0;0,1"), 0
    for seed in range(50 * part, 50 * (part + 1)):
        asked = problem(np.random.default_rng(seed))
        page.evaluate("state => { location.hash = state }", state(asked))
        page.wait_for_timeout(20)
        found = page.evaluate(READ, ["scores", "exponentials", "weights"])
        try:
            count += check(found, asked)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {asked}") from error
    assert count > 4000
