"""What was inspected as one HTML page that needs nothing else.

Decides the page; numbers are those of `heads`, pictures those of `clearhead.plot`.
"""

import base64
from collections.abc import Sequence
from html import escape

from clearhead.attention_weights.notebook import MEANINGS, cell
from clearhead.inspecting.heads import Head, Inspected, Part, carried, left_out
from clearhead.wording import count, label, percent

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  background: light-dark(#fff, #14171c); color: light-dark(#1a1a1a, #e8e8e8); }
h1, h2 { overflow-wrap: anywhere; line-height: 1.2; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid light-dark(#ddd, #333a45); }
th button { font: inherit; color: inherit; background: none; border: 0; cursor: pointer; }
.word { text-align: left; overflow-wrap: anywhere; min-width: 6em; }
dt { font-weight: bold; } dd { margin: 0 0 .3rem 1.5rem; }
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
HEAD = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'


def page(
    of: Inspected, heads: Sequence[Head], chosen: tuple[int, int], query: int, parts: Sequence[Part], pictures: bool
) -> str:
    """The whole page: all heads, the chosen head and one row of it; with pictures where matplotlib is installed."""
    layer, head = chosen
    notes = "".join(f"<p>{escape(note)}.</p>" for note in of.notes)
    blocks = [
        f"<h1>{escape(str(of))}</h1>{notes}<h2>All heads</h2>",
        f"<p>Means over queries, but the last column; a click on a heading sorts.</p>{table(heads)}{meanings()}",
    ]
    if pictures and len(heads) > 1:  # of one head, its own picture is below
        for n, w in of.layers.items():
            said = f"weights of {count(w.shape[0], 'head')} of layer {n} as small heat maps, queries down, keys across"
            blocks.append(figure(f"Layer {n}", images(said, "heads", w, title=f"layer {n}")))
    blocks.append(f"<h2>Head {layer}.{head}</h2>")
    w, which = of.head(layer, head), f"head {layer}.{head}"
    if pictures:
        said = f"heat map of the weights of {which}, queries down, keys across"
        blocks.append(figure("All weights", images(said, "heat", w, of.tokens)))
        said = f"line of the weight that each key of {which} receives from all queries together"
        blocks.append(figure("What each key receives", images(said, "received", w, of.tokens)))
    item = f"item {query}, “{label(of.tokens[query])}”,"
    blocks.append(f"<h2>What {escape(item)} looks at</h2>{cumulative(parts)}")
    if pictures:
        said = f"bars of the weights that {item} gives the keys of {which}"
        blocks.append(figure("Its weights", images(said, "row", w, query, of.tokens)))
    top = f"<head>{HEAD}<title>{escape(of.name)}</title><style>{STYLE}</style></head>"
    body = f"<body>{''.join(blocks)}<script>{SCRIPT}</script></body>"
    return f'<!doctype html><html lang="en">{top}{body}</html>\n'


def table(heads: Sequence[Head]) -> str:
    """The sheet of heads."""
    names = "".join(f"<th><button>{title}</button></th>" for title, _ in MEANINGS.values())
    rows = "".join("<tr>" + "".join(cell(getattr(head, name)) for name in MEANINGS) + "</tr>" for head in heads)
    return scrolled(f"<thead><tr>{names}</tr></thead><tbody>{rows}</tbody>")


def meanings() -> str:
    """What each column of the sheet is."""
    said = "".join(f"<dt>{title}</dt><dd>{meaning}</dd>" for title, meaning in MEANINGS.values())
    return f"<details open><summary>What the columns mean</summary><dl>{said}</dl></details>"


def scrolled(rows: str) -> str:
    """A table in a box of its own, which scrolls where the window is narrow."""
    return f'<div class="scroll"><table>{rows}</table></div>'


def cumulative(parts: Sequence[Part]) -> str:
    """The keys that carry a row, and how many others there are."""
    shown = carried(parts)
    rows = "".join(
        f'<tr>{cell(part.key)}<td class="word">{escape(label(part.token))}</td>{cell(part.weight)}'
        f"<td>{percent(part.together)}</td></tr>"
        for part in shown
    )
    names = '<th>key</th><th class="word">item</th><th>weight</th><th>together</th>'
    said = "Its heaviest keys, to 99 % of its weight; together is what a key and those above it carry."
    listed = f"<p>{said}</p>" + scrolled(f"<thead><tr>{names}</tr></thead><tbody>{rows}</tbody>") if shown else ""
    return f"{listed}<p>{left_out(parts, shown)}</p>"


def figure(words: str, pictures: str) -> str:
    """A captioned figure."""
    return f"<figure><figcaption>{escape(words)}</figcaption>{pictures}</figure>"


def images(said: str, kind: str, *arguments: object, **more: object) -> str:
    """A figure for light and for dark pages, inside the page, and what one hears who does not see it."""
    from clearhead import plot

    made = []
    for theme in ("light", "dark"):
        drawn = plot.picture_of(getattr(plot, kind)(*arguments, theme=theme, **more))
        data = base64.b64encode(drawn).decode()
        made.append(f'<img class="{theme}" alt="{escape(said)}" src="data:image/png;base64,{data}">')
    return "".join(made)
