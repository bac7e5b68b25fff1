"""An explanation or a lesson as JSON, every number in full: reading it back gives the very same float64."""

import json
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
    if matrix:
        made["matrix"] = {
            "scores": triangle(e.score_matrix.tolist()),
            "weights": triangle(e.weight_matrix.tolist()),
        }
    return json.dumps(made, indent=2, allow_nan=False) + "\n"


def render_lesson(name: str, lesson: Lesson, e: Explanation) -> str:
    """The rows of a lesson, and what they are about."""
    n, d = e.x.shape
    made = {"steps": name, "tokens": e.tokens, "length": n, "dim": d, "rows": lesson.rows}
    return json.dumps(made, indent=2, allow_nan=False) + "\n"


def triangle(square: list[list[float]]) -> list[list[float | None]]:
    """A square matrix without its hidden entries.

    >>> triangle([[1.0, 9.0], [2.0, 3.0]])
    [[1.0, None], [2.0, 3.0]]
    """
    return [[*row[: i + 1], *[None] * (len(row) - i - 1)] for i, row in enumerate(square)]
