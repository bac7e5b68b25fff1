"""The inspection as one self-contained HTML page.

Responsible for the page. The numbers come from `heads`, the figures from `clearhead.plot`.
"""

import base64
from collections.abc import Sequence
from html import escape

from clearhead.attention_weights.notebook import MEANINGS, cell
from clearhead.inspecting.heads import Head, KeyShare, heaviest, remainder_text
from clearhead.reading.readings import Reading
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
META_TAGS = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'


def inspection_page(
    of: Reading,
    heads: Sequence[Head],
    chosen: tuple[int, int],
    query: int,
    parts: Sequence[KeyShare],
    pictures: bool,
) -> str:
    """The page: all heads, the chosen head and one row of it; `pictures` needs matplotlib."""
    layer, head = chosen
    notes = "".join(f"<p>{escape(note)}.</p>" for note in of.notes)
    blocks = [
        f"<h1>{escape(str(of))}</h1>{notes}<h2>All heads</h2>",
        "<p>Means over queries, except in the last column; click a heading to sort.</p>"
        f"{heads_html(heads)}{legend_html()}",
    ]
    if pictures and len(heads) > 1:  # a single head has its picture below
        for n, w in ((n, one.weights) for n, one in of.stack().layers.items()):
            alt = f"weights of {count(w.shape[0], 'head')} of layer {n} as small heat maps, queries down, keys across"
            blocks.append(figure_html(f"Layer {n}", themed_images(alt, "heads", w, title=f"layer {n}")))
    blocks.append(f"<h2>Head {layer}.{head}</h2>")
    w, which = of.stack().head(layer, head), f"head {layer}.{head}"
    if pictures:
        alt = f"heat map of the weights of {which}, queries down, keys across"
        blocks.append(figure_html("All weights", themed_images(alt, "heat", w, of.tokens)))
        alt = f"line of the weight that each key of {which} receives from all queries together"
        blocks.append(figure_html("What each key receives", themed_images(alt, "received", w, of.tokens)))
    item = f"item {query}, “{label(of.tokens[query])}”,"
    blocks.append(f"<h2>What {escape(item)} looks at</h2>{keys_html(parts)}")
    if pictures:
        alt = f"bars of the weights that {item} gives the keys of {which}"
        blocks.append(figure_html("Its weights", themed_images(alt, "row", w, query, of.tokens)))
    top = f"<head>{META_TAGS}<title>{escape(of.name)}</title><style>{STYLE}</style></head>"
    body = f"<body>{''.join(blocks)}<script>{SCRIPT}</script></body>"
    return f'<!doctype html><html lang="en">{top}{body}</html>\n'


def heads_html(heads: Sequence[Head]) -> str:
    """The sheet of heads, its columns sortable."""
    names = "".join(f"<th><button>{title}</button></th>" for title, _ in MEANINGS.values())
    rows = "".join("<tr>" + "".join(cell(getattr(head, name)) for name in MEANINGS) + "</tr>" for head in heads)
    return scrolling_table(f"<thead><tr>{names}</tr></thead><tbody>{rows}</tbody>")


def legend_html() -> str:
    """The meaning of each column of the sheet."""
    said = "".join(f"<dt>{title}</dt><dd>{meaning}</dd>" for title, meaning in MEANINGS.values())
    return f"<details open><summary>What the columns mean</summary><dl>{said}</dl></details>"


def scrolling_table(rows: str) -> str:
    """A table in a box that scrolls sideways in a narrow window."""
    return f'<div class="scroll"><table>{rows}</table></div>'


def keys_html(parts: Sequence[KeyShare]) -> str:
    """The table of a row's heaviest keys, and how many more there are."""
    shown = heaviest(parts)
    rows = "".join(
        f'<tr>{cell(part.key)}<td class="word">{escape(label(part.token))}</td>{cell(part.weight)}'
        f"<td>{percent(part.together)}</td></tr>"
        for part in shown
    )
    names = '<th>key</th><th class="word">item</th><th>weight</th><th>together</th>'
    said = "Its heaviest keys, up to 99 % of its weight; “together” is the weight of a key and all those above it."
    table = scrolling_table(f"<thead><tr>{names}</tr></thead><tbody>{rows}</tbody>")
    listed = f"<p>{said}</p>{table}" if shown else ""
    return f"{listed}<p>{remainder_text(parts, shown)}</p>"


def figure_html(caption: str, pictures: str) -> str:
    """A captioned figure."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{pictures}</figure>"


def themed_images(alt: str, kind: str, *arguments: object, **options: object) -> str:
    """A figure for light and for dark pages as embedded PNGs with alternative text."""
    from clearhead import plot

    images = []
    for theme in ("light", "dark"):
        png = plot.picture_of(getattr(plot, kind)(*arguments, theme=theme, **options))
        data = base64.b64encode(png).decode()
        images.append(f'<img class="{theme}" alt="{escape(alt)}" src="data:image/png;base64,{data}">')
    return "".join(images)
