"""What JSON says of the worked steps: every list, and null where an item is hidden."""

import json
from typing import Any

from tests.explain.judge.ranges import Range, UntrueError, exact, shown

KEYS = [
    "tokens", "position", "mask", "seen", "dot_products", "rules", "scores", "shift", "exponentials", "sum", "weights",
    "output", "at_right_angles", "zero_vectors", "similarity", "before", "after", "notes", "origins",
]  # fmt: skip
INPUTS = ("vectors", "queries", "keys", "values", "scale")


def loads(text: str) -> dict[str, Any]:
    """JSON as standards have it: no NaN, no Infinity."""

    def refuse(word: str) -> None:
        raise UntrueError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def number(value: float | str) -> float:
    """A number, or the word for an infinite one."""
    if isinstance(value, str) and value not in ("inf", "-inf"):
        raise UntrueError(f"{value!r} is no number")
    return float(value)


def within(value: float | str | None, truth: Range, what: str) -> None:
    """Hold a number in full to what it must be."""
    if value is None or not exact(number(value)).meets(truth):
        raise UntrueError(f"JSON has {value} for {what}, which is {shown(truth)}")


def check_json(judge) -> None:
    """Every entry, against the truth."""
    truth, made = judge.truth, judge.json
    entries = [key for key in made if key not in INPUTS]
    judge.holds(entries == KEYS + ["matrix"] * judge.matrix, f"entries {list(made)}")
    check_inputs(judge, made)
    judge.holds(made["tokens"] == judge.tokens and made["position"] == truth.i, "tokens or position")
    judge.holds(made["mask"] == judge.mask_name and made["seen"] == truth.items, "what is seen")
    check_row(judge, "dot_products", made["dot_products"], truth.dot)
    check_row(judge, "scores", made["scores"], truth.score)
    judge.holds([rule["rule"] for rule in made["rules"]] == [rule.name for rule in truth.rules], "names of rules")
    for stage, rule in enumerate(made["rules"]):
        check_row(judge, rule["rule"], rule["scores"], lambda j, stage=stage: truth.score(j, stage + 1))
    check_shift(judge, made["shift"])
    check_row(judge, "exponentials", made["exponentials"], judge.exponential)
    check_row(judge, "weights", made["weights"], truth.weight)
    within(made["sum"], judge.sum, "the sum")
    judge.holds(len(made["output"]) == truth.values.shape[1], "the output's dims")
    for k, value in enumerate(made["output"]):
        within(value, Range(float(truth.output[0][k]), float(truth.output[1][k])), f"the output at dim {k}")
    angles = [j for j, told in truth.angles.items() if told or j in made["at_right_angles"]]
    judge.holds(
        made["at_right_angles"] == angles, f"at right angles are {truth.angles}, JSON has {made['at_right_angles']}"
    )
    judge.holds(made["zero_vectors"] == truth.blank, "zero vectors")
    if made["similarity"] is None:
        judge.holds(truth.zero or not any(made["output"]) or truth.keys is not truth.x, "there is a cosine")
    else:
        within(made["similarity"], truth.cosine, "the cosine")
    if judge.matrix:
        check_square(judge, made["matrix"])


def check_inputs(judge, made: dict[str, Any]) -> None:
    """The vectors that went in, every digit of them."""
    truth = judge.truth
    if truth.keys is truth.x is truth.values:
        judge.holds(made["vectors"] == truth.x.tolist() and not any(key in made for key in INPUTS[1:]), "the vectors")
        return
    judge.holds("vectors" not in made and made["scale"] == truth.scale, "vectors and a scale")
    for name, held in (("queries", truth.x), ("keys", truth.keys), ("values", truth.values)):
        judge.holds(made[name] == held.tolist(), name)


def check_row(judge, name: str, row: list[float | str | None], truth: Any) -> None:
    """A list up to the last item that is seen, null where one is hidden."""
    judge.holds(len(row) == judge.truth.reach, f"{name} has {len(row)} entries for {judge.truth.reach}")
    for j, value in enumerate(row):
        judge.holds((value is None) == (not judge.truth.seen[j]), f"{name} of item {j} is {value}")
        if value is not None:
            within(value, truth(j), f"{name} of item {j}")


def check_shift(judge, shift: float) -> None:
    """0, or the largest score where a float64 cannot hold the exponentials."""
    truth = judge.truth
    if not truth.in_softmax.any():
        judge.holds(not shift, "a shift of nothing")
        return
    if shift:
        within(shift, truth.top, "the largest score")
    overflow = truth.log_sum.lo > 709.79
    judge.holds(bool(shift) or not overflow, "the sum overflows")
    judge.holds(not shift or truth.log_sum.hi > 709.78 or needs_shift(truth), "nothing needs a shift")


def needs_shift(truth: Any) -> bool:
    """Whether an exponential underflows though its weight does not."""
    high, log = truth.scores[1], truth.log_weights[1]
    return bool((truth.in_softmax & (high < -708) & (log > -746)).any())


def check_square(judge, square: dict[str, list[list[float | None]]]) -> None:
    """Scores and weights of all rows."""
    judge.holds(list(square) == ["scores", "weights"], "the matrix")
    for i, row in enumerate(judge.all_rows):
        for name, truth in (("scores", row.score), ("weights", row.weight)):
            judge.holds(len(square[name][i]) == row.n, f"{name} of row {i}")
            for j, value in enumerate(square[name][i]):
                judge.holds((value is None) == (not row.seen[j]), f"{name} of items {i} and {j} are {value}")
                if value is not None:
                    within(value, truth(j), f"{name} of items {i} and {j}")
