"""`explain` for Python and notebooks: takes a text or vectors, returns a result that displays itself.

Responsible for the interface. Not for the numbers, which are in `steps`, nor the page, which is in `story`.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy.typing as npt

from clearhead.displayed import Displayed
from clearhead.explain import html, inputs, markdown, steps
from clearhead.explain.steps import Explanation
from clearhead.explain.story import MOST_DIMS_SHOWN, worked_page
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import CAUSAL
from clearhead.rules.scores import as_rules


class Worked(Explanation, Displayed):
    """An explanation that prints as text and displays as a page in a notebook."""

    def __str__(self) -> str:
        from clearhead.explain import text

        return text.render(worked_page(self, MOST_DIMS_SHOWN))

    def _repr_html_(self) -> str:
        return html.render(worked_page(self, MOST_DIMS_SHOWN))

    def _repr_markdown_(self) -> str:
        return markdown.render(worked_page(self, MOST_DIMS_SHOWN))


def explain(
    x: str | npt.ArrayLike,
    tokens: Sequence[str] | None = None,
    position: int | str = -1,
    *,
    keys: npt.ArrayLike | None = None,
    values: npt.ArrayLike | None = None,
    key_tokens: Sequence[str] | None = None,
    scale: float | None = None,
    mask: Mask | None = None,
    score: Any = (),
) -> Worked:
    """Work out attention at one position and keep every number: over a text, with the shipped word vectors, or vectors.

    `x` is a text, or (n, d) one vector per item, with `tokens` as their n names. `position` counts from 0, or from the
    end if negative, or is a word (its last occurrence). With `keys` (m, d) and `values` (m, dv), x holds queries, as in
    a transformer, and the scale is 1/√d; `key_tokens` names the keys where they are other items than the queries
    (cross-attention). `mask` and `score` are those of `attention`. The result has `scores`, `exponentials`, `weights`,
    `output`, `angles` (items at right angles) and more, in float64 and read-only; it prints as text and displays itself
    in notebooks. Raises InputError, ShapeError or DtypeError, naming what is wrong.

    >>> e = explain("water from the river flooded the bank")
    >>> e.token, dict(zip(e.tokens, e.weights.round(2).tolist()))["river"], [word for word, _ in e.after[:2]]
    ('bank', 0.13, ['flooded', 'water'])
    >>> explain([[1, 0], [0, 1]]).weights.round(4)    # at right angles, and seen all the same
    array([0.2689, 0.7311])
    """
    if isinstance(x, str):
        e = inputs.from_text(x, str(position), mask=mask or CAUSAL, score=as_rules(score))
    else:
        e = steps.explain_vectors(
            x, tokens, position, keys=keys, values=values, key_tokens=key_tokens, scale=scale, mask=mask, score=score
        )
    return Worked(*(getattr(e, field.name) for field in fields(e)))
