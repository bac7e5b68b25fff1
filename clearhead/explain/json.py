"""An explanation or a lesson as JSON, with numbers in full precision: reading them back gives the same float64."""

import json
import math
from typing import Any

from clearhead.arrays import Array
from clearhead.explain.lesson import Lesson
from clearhead.explain.steps import Explanation
from clearhead.rules.named import name_of_mask, name_of_score


def render(e: Explanation, matrix: bool = False) -> str:
    """The explanation as JSON."""
    return json_text(explanation_fields(e, matrix))


def explanation_fields(e: Explanation, matrix: bool = False) -> dict[str, Any]:
    """Every number of the steps, by name.

    `vectors` are the items', or `queries`, `keys` and `values` where these differ; `asking` names the items of the
    queries where they differ from the keys'. Lists of scores, exponentials and weights have an entry for every item up
    to the last visible one, null where an item is hidden; `seen` lists the visible items. With `matrix`, every row's
    scores and weights are included.
    """
    fields: dict[str, Any] = {
        "tokens": e.tokens,
        "position": e.position,
        "mask": name_of_mask(e.mask),
        "seen": e.items,
        **vector_fields(e),
        "dot_products": seen_values(e, e.stages[0] / e.operands.scale),
        "rules": [
            {"rule": name_of_score(rule), "scores": seen_values(e, stage)}
            for rule, stage in zip(e.rules, e.stages[1:], strict=True)
        ],
        "scores": seen_values(e, e.stages[-1]),
        "shift": e.shift,
        "exponentials": seen_values(e, e.exponentials),
        "sum": e.sum,
        "weights": seen_values(e, e.weights),
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
        fields["matrix"] = {
            "scores": null_where_hidden(e.square.scores.tolist(), e.square.seen.tolist()),
            "weights": null_where_hidden(e.square.weights.tolist(), e.square.seen.tolist()),
        }
    return fields


def vector_fields(e: Explanation) -> dict[str, Any]:
    """The input vectors, by name."""
    of = e.operands
    if of.alike:
        return {"vectors": of.queries.tolist()}
    asking = {} if e.itself is not None else {"asking": e.asking}
    arrays = {"queries": of.queries.tolist(), "keys": of.keys.tolist(), "values": of.values.tolist()}
    return {**asking, **arrays, "scale": of.scale}


def seen_values(e: Explanation, values: Array) -> list[float | None]:
    """A row up to the last visible item, null where an item is hidden."""
    return [float(value) if seen else None for value, seen in zip(values[: e.reach], e.seen, strict=False)]


def render_lesson(name: str, lesson: Lesson, e: Explanation) -> str:
    """A lesson's rows, questions and answers, and its input, as JSON."""
    n, d = e.x.shape
    fields = {
        "steps": name, "tokens": e.tokens, "length": n, "dim": d, "rows": lesson.rows, "why": lesson.why,
        **lesson.more, "notes": e.notes,
    }  # fmt: skip
    return json_text(fields)


def json_text(fields: dict[str, Any]) -> str:
    """A page's fields as JSON text."""
    return json.dumps(json_safe(fields), indent=2, allow_nan=False) + "\n"


def json_bytes(fields: dict[str, Any]) -> bytes:
    """An answer as JSON in UTF-8, where half a surrogate pair becomes a question mark."""
    text = json.dumps(json_safe(fields), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def null_where_hidden(square: list[list[float]], seen: list[list[bool]]) -> list[list[float | None]]:
    """A square matrix with null for its hidden entries.

    >>> null_where_hidden([[1.0, 9.0], [2.0, 3.0]], [[True, False], [True, True]])
    [[1.0, None], [2.0, 3.0]]
    """
    return [
        [x if is_seen else None for x, is_seen in zip(*rows, strict=True)] for rows in zip(square, seen, strict=True)
    ]


def json_safe(value: Any) -> Any:
    """The value with infinite numbers as strings and not-a-numbers as None, because JSON has no such numbers.

    >>> json_safe({"scores": [1.0, float("-inf"), float("nan")]})
    {'scores': [1.0, '-inf', None]}
    """
    if isinstance(value, dict):
        return {name: json_safe(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else repr(value)
    return value
