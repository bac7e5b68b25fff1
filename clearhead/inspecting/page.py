"""What was inspected as one HTML page that needs nothing else, and what a notebook shows of weights.

Decides the page; numbers are those of `heads`, pictures those of `clearhead.plot`.
"""

import base64
from collections.abc import Sequence
from html import escape
from math import prod

from clearhead.inspecting.heads import Head, Inspected, Part
from clearhead.weights import Weights

AT_A_GLANCE = 1 << 26  # pairs over all heads that a notebook looks at unasked: a fraction of a second
COLUMNS = (
    ("layer", "layer"), ("head", "head"), ("entropy", "entropy"), ("effective", "keys, effectively"),
    ("distance", "mean distance"), ("first", "on the first key"), ("strongest", "strongest off it"),
)  # fmt: skip
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  background: light-dark(#fff, #14171c); color: light-dark(#1a1a1a, #e8e8e8); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid light-dark(#ddd, #333a45); }
th button { font: inherit; color: inherit; background: none; border: 0; cursor: pointer; }
td.word { text-align: left; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
.dark { display: none; } @media (prefers-color-scheme: dark) { .light { display: none; } .dark { display: inline; } }
"""
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const body = button.closest("table").tBodies[0], at = button.closest("th").cellIndex;
  const falling = button.dataset.falling = button.dataset.falling === "1" ? "0" : "1";
  const value = row => parseFloat(row.cells[at].dataset.value);
  body.append(...[...body.rows].sort((a, b) => (value(a) - value(b)) * (falling === "1" ? -1 : 1)));
};
"""


def page(
    of: Inspected, heads: Sequence[Head], chosen: tuple[int, int], query: int, parts: Sequence[Part], pictures: bool
) -> str:
    """The whole page: all heads, the chosen head and one row of it; with pictures where matplotlib is installed."""
    layer, head = chosen
    notes = "".join(f"<p>{escape(note)}.</p>" for note in of.notes)
    blocks = [
        f"<h1>{escape(str(of))}</h1>{notes}<h2>All heads</h2>",
        f"<p>Means over queries; a click on a heading sorts.</p>{table(heads)}",
    ]
    if pictures:
        blocks += [figure(f"Layer {n}", images("heads", w, title=f"layer {n}")) for n, w in of.layers.items()]
    blocks.append(f"<h2>Head {layer}.{head}</h2>")
    w = of.head(layer, head)
    if pictures:
        blocks.append(figure("All weights", images("heat", w, of.tokens)))
        blocks.append(figure("What each key receives", images("received", w, of.tokens)))
    token = escape(of.tokens[query])
    blocks.append(f"<h2>What item {query}, “{token}”, looks at</h2>{cumulative(parts)}")
    if pictures:
        blocks.append(figure("Its weights", images("row", w, query, of.tokens)))
    top = f'<head><meta charset="utf-8"><title>{escape(of.name)}</title><style>{STYLE}</style></head>'
    body = f"<body>{''.join(blocks)}<script>{SCRIPT}</script></body>"
    return f'<!doctype html><html lang="en">{top}{body}</html>\n'


def table(heads: Sequence[Head]) -> str:
    """The sheet of heads."""
    names = "".join(f"<th><button>{title}</button></th>" for _, title in COLUMNS)
    rows = "".join(
        "<tr>" + "".join(cell(getattr(head, name)) for name, _ in COLUMNS) + "</tr>" for head in heads
    )  # fmt: skip
    return f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>"


def cell(value: float) -> str:
    """A number, rounded to read and whole to sort by."""
    shown = str(value) if isinstance(value, int) else f"{value:.4g}"
    return f'<td data-value="{value!r}">{shown}</td>'


def cumulative(parts: Sequence[Part]) -> str:
    """The keys that carry a row."""
    if not parts:
        return "<p>It sees nothing.</p>"
    rows = "".join(
        f'<tr>{cell(part.key)}<td class="word">{escape(part.token)}</td>{cell(part.weight)}{cell(part.together)}</tr>'
        for part in parts
    )
    return (
        "<table><thead><tr><th>key</th><th>item</th><th>weight</th><th>together</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def figure(words: str, pictures: str) -> str:
    """A captioned figure."""
    return f"<figure><figcaption>{escape(words)}</figcaption>{pictures}</figure>"


def images(kind: str, *arguments: object, **more: object) -> str:
    """A figure for light and for dark pages, inside the page."""
    from clearhead import plot

    made = []
    for theme in ("light", "dark"):
        drawn = plot.picture_of(getattr(plot, kind)(*arguments, theme=theme, **more))
        data = base64.b64encode(drawn).decode()
        made.append(f'<img class="{theme}" alt="{kind}" src="data:image/png;base64,{data}">')
    return "".join(made)


def notebook(w: Weights) -> str:
    """Weights in a notebook: a sheet and a picture of their heads, if they are small enough to look at unasked."""
    said = f"<code>{escape(repr(w))}</code>"
    if not 0 < prod(w.shape) <= AT_A_GLANCE:
        return f"{said}<p>Too large to look at unasked: see w.map(), w.summary() and clearhead.plot.</p>"
    found = w.summary("effective", "distance", "first")
    numbers = (found[name].reshape(-1, w.shape[-2]).mean(axis=-1) for name in ("effective", "distance", "first"))
    rows = "".join(
        f"<tr>{cell(n)}{cell(float(a))}{cell(float(b))}{cell(float(c))}</tr>"
        for n, (a, b, c) in enumerate(zip(*numbers, strict=True))
    )
    names = "<th>head</th><th>keys, effectively</th><th>mean distance</th><th>on the first key</th>"
    sheet = f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>"
    drawn = picture(w)
    if drawn is None:
        return said + sheet
    return f'{said}{sheet}<img alt="weights" src="data:image/png;base64,{base64.b64encode(drawn).decode()}">'


def picture(w: Weights) -> bytes | None:
    """All heads, or the one there is, as a PNG; None without matplotlib or for what is too large to look at unasked."""
    if not 0 < prod(w.shape) <= AT_A_GLANCE:
        return None
    try:
        from clearhead import plot
    except ImportError:
        return None
    return plot.picture_of(plot.heads(w) if w.ndim > 2 else plot.heat(w))
