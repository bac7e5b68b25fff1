"""Notebook output for weights: a table of heads and, with matplotlib installed, a picture."""

import base64
from html import escape
from math import prod

from clearhead.attention_weights.weights_like import WeightsLike
from clearhead.wording import number

AT_A_GLANCE = 1 << 26  # pairs over all heads that a notebook computes automatically, in a fraction of a second
MEANINGS = {
    "layer": ("layer", "the layer's number in the model, from 0"),
    "head": ("head", "the head's number in its layer, from 0"),
    "entropy": ("entropy", "how evenly a query's weight is spread over keys, in nats; 0 is all on one key"),
    "effective": ("keys, effectively", "over how many keys it is spread, as if evenly: e to the entropy"),
    "distance": ("mean distance", "how many items back the weight lies"),
    "first": ("on the first key", "the weight that item 0 gets"),
    "strongest": ("strongest off it", "the largest weight that any query gives any other key than item 0"),
}  # title and explanation of each column of the table; all but the last are means over queries


def weights_html(w: WeightsLike) -> str:
    """Weights as HTML: a table and a picture of their heads, if they are small enough to compute automatically."""
    text = f"<code>{escape(repr(w))}</code>"
    if not prod(w.shape):
        return text
    if prod(w.shape) > AT_A_GLANCE:
        return f"{text}<p>Too large to compute automatically: see w.map(), w.summary() and clearhead.plot.</p>"
    columns = ("effective", "distance", "first")
    summary = w.summary(*columns)
    numbers = (summary[name].reshape(-1, w.shape[-2]).mean(axis=-1) for name in columns)
    rows = "".join(
        f"<tr>{cell(n)}{cell(float(a))}{cell(float(b))}{cell(float(c))}</tr>"
        for n, (a, b, c) in enumerate(zip(*numbers, strict=True))
    )
    names = "".join(f"<th>{MEANINGS[name][0]}</th>" for name in ("head", *columns))
    sheet = f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>"
    drawn = picture(w)
    if drawn is None:
        return text + sheet
    data = base64.b64encode(drawn).decode()
    alt = f"heat map of weights of shape {w.shape}, queries down, keys across"
    return f'{text}{sheet}<img alt="{alt}" src="data:image/png;base64,{data}">'


def picture(w: WeightsLike) -> bytes | None:
    """All heads as a PNG; None without matplotlib or if the weights are too large to compute automatically."""
    if not 0 < prod(w.shape) <= AT_A_GLANCE:
        return None
    try:
        from clearhead.attention_weights import figures
    except ImportError:
        return None
    return figures.picture_of(figures.heads(w) if w.ndim > 2 else figures.heat(w))


def cell(value: float) -> str:
    """A table cell with a rounded number, and the exact one to sort by."""
    return f'<td data-value="{value!r}">{value if isinstance(value, int) else number(value)}</td>'
