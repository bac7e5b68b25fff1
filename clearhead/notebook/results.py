"""Widgets for results that display themselves: weights, watches and calls by Read, explanations by Learn.

Responsible for which result gets which widget. A result that a screen cannot show as it is gets none.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import numpy as np

from clearhead.attention_weights.matrix import Weights
from clearhead.errors import ClearheadError
from clearhead.explain.steps import Explanation
from clearhead.functional import Attended
from clearhead.notebook.frame import Frame
from clearhead.notebook.learn import Learn
from clearhead.notebook.read import Read
from clearhead.view.sentences import MOST_ITEMS_SHOWN
from clearhead.watched.seen import Watch
from clearhead.words import load

MOST_DIMS = 8  # that Learn takes as numbers typed


def widget_of(result: Any) -> Frame | None:
    """The widget that shows a result; None if neither screen can."""
    try:
        if isinstance(result, Watch | Weights | Attended):
            return Read(result)
        state = lesson_of(result) if isinstance(result, Explanation) else None
        return None if state is None else Learn(**state)
    except ClearheadError:  # such as weights that need values no longer there: the result's own text says what it is
        return None


def lesson_of(e: Explanation) -> Mapping[str, Any] | None:
    """What Learn opens with to show an explanation; None if it has more than Learn can show.

    >>> from clearhead.explain import explain
    >>> lesson_of(explain([[1, 0], [0, 1]], ["a", "b"]))
    {'text': None, 'state': 'vectors=1.0%2C0.0%3B0.0%2C1.0&name=a&name=b&row=1&step=0'}
    >>> lesson_of(explain("the river bank", position="river"))
    {'text': 'the river bank', 'state': 'axes=all&row=1'}
    """
    n, dims = e.x.shape
    if not e.operands.alike or e.operands.scale != 1 or e.masked or e.rules or n > MOST_ITEMS_SHOWN:
        return None
    if e.origins:
        text = " ".join(e.tokens)
        again = load().embed(text)
        same = again.tokens == e.tokens and np.array_equal(again.x, e.x)
        return {"text": text, "state": urlencode({"axes": "all", "row": e.position})} if same else None
    if not 2 <= dims <= MOST_DIMS:
        return None
    rows = ";".join(",".join(map(repr, row)) for row in e.x.tolist())
    fields = [("vectors", rows), *(("name", name) for name in e.tokens), ("row", e.position), ("step", 0)]
    return {"text": None, "state": urlencode(fields)}
