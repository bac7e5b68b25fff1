"""An explanation or a lesson as JSON, every number in full: reading it back gives the very same float64."""

import json
import math
from typing import Any

from clearhead.arrays import Array
from clearhead.explain.lesson import Lesson
from clearhead.explain.steps import Explanation
from clearhead.rules.named import name_of_mask, name_of_score


def render(e: Explanation, matrix: bool = False) -> str:
    """The explanation as JSON."""
    return written(worked(e, matrix))


def worked(e: Explanation, matrix: bool = False) -> dict[str, Any]:
    """Every number of the steps.

    `vectors` are the items', or `queries`, `keys` and `values` where these differ; `asking` names the queries' items
    where they are others. Lists of scores, exponentials and weights have an entry for every item up to the last that
    is seen, null where one is hidden; `seen` has the items that are. With `matrix`, every row's scores and weights too.
    """
    made: dict[str, Any] = {
        "tokens": e.tokens,
        "position": e.position,
        "mask": name_of_mask(e.mask),
        "seen": e.items,
        **vectors(e),
        "dot_products": row(e, e.stages[0] / e.operands.scale),
        "rules": [
            {"rule": name_of_score(rule), "scores": row(e, stage)}
            for rule, stage in zip(e.rules, e.stages[1:], strict=True)
        ],
        "scores": row(e, e.stages[-1]),
        "shift": e.shift,
        "exponentials": row(e, e.exponentials),
        "sum": e.sum,
        "weights": row(e, e.weights),
        "output": e.output.tolist(),
        "at_right_angles": e.angles,
        "zero_vectors": e.blank,
        "similarity": e.similarity,
        "before": [{"word": word, "cosine": cosine} for word, cosine in e.before],
        "after": [{"word": word, "cosine": cosine} for word, cosine in e.after],
        "notes": e.notes,
        "origins": [
            {"item": j, "token": e.tokens[j], "how": item.how, "of": item.sources}
            for j, item in enumerate(e.origins)
            if item.how != "known"
        ],
    }
    if matrix:
        made["matrix"] = {
            "scores": only_seen(e.square.scores.tolist(), e.square.seen.tolist()),
            "weights": only_seen(e.square.weights.tolist(), e.square.seen.tolist()),
        }
    return made


def vectors(e: Explanation) -> dict[str, Any]:
    """What went in."""
    of = e.operands
    if of.alike:
        return {"vectors": of.queries.tolist()}
    asking = {} if e.itself is not None else {"asking": e.asking}
    arrays = {"queries": of.queries.tolist(), "keys": of.keys.tolist(), "values": of.values.tolist()}
    return {**asking, **arrays, "scale": of.scale}


def row(e: Explanation, values: Array) -> list[float | None]:
    """A row up to the last item that is seen, null where an item is hidden."""
    return [float(value) if seen else None for value, seen in zip(values[: e.reach], e.seen, strict=False)]


def render_lesson(name: str, lesson: Lesson, e: Explanation) -> str:
    """The rows of a lesson, what they are about, and the questions that it answers."""
    n, d = e.x.shape
    made = {
        "steps": name, "tokens": e.tokens, "length": n, "dim": d, "rows": lesson.rows, "why": lesson.why,
        **lesson.more, "notes": e.notes,
    }  # fmt: skip
    return written(made)


def written(made: dict[str, Any]) -> str:
    """A page's numbers as JSON text."""
    return json.dumps(finite(made), indent=2, allow_nan=False) + "\n"


def only_seen(square: list[list[float]], seen: list[list[bool]]) -> list[list[float | None]]:
    """A square matrix without its hidden entries.

    >>> only_seen([[1.0, 9.0], [2.0, 3.0]], [[True, False], [True, True]])
    [[1.0, None], [2.0, 3.0]]
    """
    return [[x if here else None for x, here in zip(*rows, strict=True)] for rows in zip(square, seen, strict=True)]


def finite(made: Any) -> Any:
    """The same with infinite numbers as words, which JSON has no numbers for.

    >>> finite({"scores": [1.0, float("-inf")]})
    {'scores': [1.0, '-inf']}
    """
    if isinstance(made, dict):
        return {name: finite(value) for name, value in made.items()}
    if isinstance(made, list | tuple):
        return [finite(value) for value in made]
    return repr(made) if isinstance(made, float) and math.isinf(made) else made
