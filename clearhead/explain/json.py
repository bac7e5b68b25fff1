"""An explanation or a lesson as JSON, every number in full: reading it back gives the very same float64."""

import json
import math
from typing import Any

from clearhead.explain.lessons import Lesson
from clearhead.explain.steps import Explanation


def render(e: Explanation, matrix: bool = False) -> str:
    """The explanation: its steps, and with `matrix` every row's scores and weights, null where hidden."""
    made: dict[str, Any] = {
        "tokens": e.tokens,
        "position": e.position,
        "scores": e.scores.tolist(),
        "shift": e.shift,
        "exponentials": e.exponentials.tolist(),
        "sum": e.sum,
        "weights": e.weights.tolist(),
        "output": e.output.tolist(),
        "zero_scores": e.zeros,
        "similarity": e.similarity,
        "before": [{"word": word, "cosine": cosine} for word, cosine in e.before],
        "after": [{"word": word, "cosine": cosine} for word, cosine in e.after],
        "notes": e.notes,
    }
    if e.rules or e.masked:
        items = set(e.items)
        made["mask"], made["seen"] = repr(e.mask), e.items
        made["rules"] = [
            {"rule": repr(rule), "scores": e.stages[at + 1][e.position, : e.reach].tolist()}
            for at, rule in enumerate(e.rules)
        ]
        made["dot_products"] = e.stages[0][e.position, : e.reach].tolist()
        for name in ("scores", "exponentials", "weights"):
            made[name] = [x if j in items else None for j, x in enumerate(made[name])]
        made = finite(made)
    if matrix:
        made["matrix"] = {
            "scores": finite(only_seen(e.score_matrix.tolist(), e.seen.tolist())),
            "weights": only_seen(e.weight_matrix.tolist(), e.seen.tolist()),
        }
    return json.dumps(made, indent=2, allow_nan=False) + "\n"


def render_lesson(name: str, lesson: Lesson, e: Explanation) -> str:
    """The rows of a lesson, and what they are about."""
    n, d = e.x.shape
    made = {"steps": name, "tokens": e.tokens, "length": n, "dim": d, "rows": lesson.rows}
    return json.dumps(made, indent=2, allow_nan=False) + "\n"


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
    if isinstance(made, list):
        return [finite(value) for value in made]
    return repr(made) if isinstance(made, float) and math.isinf(made) else made
