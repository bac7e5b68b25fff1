"""The command `clearhead inspect`: from a model and a text to a sheet on the terminal, figures and an HTML page.

Responsible for checking the options before anything is computed, and for writing the output; each file is written
whole or not at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from clearhead.attention_weights.notebook import MEANINGS
from clearhead.errors import FileError, InputError
from clearhead.explain.blocks import Column, Table
from clearhead.files.text import read_text
from clearhead.files.writing import write_whole
from clearhead.inspecting.heads import (
    ORDERS,
    Head,
    KeyShare,
    heaviest,
    item_index,
    measure_heads,
    rank_keys,
    remainder_text,
    sort_heads,
)
from clearhead.reading import sources
from clearhead.reading.answers import Reader
from clearhead.reading.kept import row_answers
from clearhead.reading.readings import Reading
from clearhead.view import page
from clearhead.wording import count, label, number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_KEYS = 40  # listed on the terminal for one row


@dataclass(frozen=True)
class InspectOptions:
    """The command's options; raises InputError or FileError for those that are wrong before a model is read."""

    sort: str
    most: int
    head: tuple[int, int]
    row: int | str  # an item's index, or its word
    plots: Path | None
    kind: str
    html: Path | None
    force: bool

    def __post_init__(self) -> None:
        if self.sort not in ORDERS:
            raise InputError(f"--sort {self.sort} is unknown: use {', '.join(ORDERS)}.")
        if self.kind not in ("png", "svg", "pdf"):
            raise InputError(f"--kind {self.kind} is unknown: use png, svg or pdf.")
        if self.plots and not has_matplotlib():
            raise InputError("--plots needs matplotlib: pip install 'clearhead[plot]'.")
        if self.plots and self.plots.exists() and not self.plots.is_dir():
            raise FileError(f"{self.plots} is a file: name a folder.")
        layer, head = self.head
        for path in (self.html, self.plots and self.plots / f"head-{layer}.{head}-heat.{self.kind}"):
            if path and path.exists() and not self.force:
                raise FileError(f"{path} exists already: choose another name, or replace it with --force.")


@dataclass(frozen=True, eq=False)
class Inspection:
    """The result: the heads in order, the chosen row's keys by falling weight, and the files written."""

    of: Reading
    options: InspectOptions
    query: int
    heads: list[Head]
    parts: list[KeyShare]
    files: list[Path]

    def as_json(self) -> str:
        """The result as JSON: every head's numbers and every key of the row."""
        import json

        layer, head = self.options.head
        about = {
            "name": self.of.name,
            "notes": self.of.notes,
            "tokens": self.of.tokens,
            "heads": [asdict(head) for head in self.heads],
            "row": {"layer": layer, "head": head, "query": self.query, "keys": [asdict(part) for part in self.parts]},
            "files": [str(path) for path in self.files],
        }
        return json.dumps(about, indent=2)


def load_attention(model: str, text: Sequence[str], embeddings: Path | None = None) -> Reading:
    """The attention of `vectors`, of a model's folder, each over a text, or the latest of a saved watch."""
    if model == "vectors":
        if not text:
            raise InputError("Nothing to inspect: give a text, or a file that holds one.")
        return sources.from_vectors(read_text(text), embeddings)
    if embeddings:
        raise InputError(f"--embeddings goes with vectors, but the model is {model}: give vectors in its place.")
    path = Path(model)
    if path.is_file():
        if text:
            raise InputError(f"{model} is a saved watch and already holds the attention of its text: give no text.")
        return sources.watch_file(path)[-1]
    if not path.is_dir() and model == "tiny":
        raise InputError("tiny is not for inspect: use explain TEXT --model tiny, or view --model tiny TEXT.")
    if not path.is_dir():
        raise FileError(f"{model} is neither a folder with a model nor a saved watch: give one, or vectors.")
    if not text:
        raise InputError("Nothing to inspect: give a text, or a file that holds one.")
    from clearhead.reading.models import from_folder

    return from_folder(path, read_text(text))


def inspect_heads(of: Reading, options: InspectOptions, advance: Callable[[int], None]) -> Inspection:
    """Compute the sheet and the row, and write the figures and the page that the options ask for."""
    w = of.stack().head(*options.head)
    query = item_index(options.row, of.tokens[: w.shape[0]])
    heads = sort_heads(list(measure_heads(of, advance)), options.sort)
    parts = rank_keys(w, query, of.tokens)
    files = draw_figures(of, options, query) if options.plots else []
    if options.html:
        known, state = row_answers(Reader([of]), *options.head, query)
        text = page.single_file(page.READ, known, urlencode(state))
        write_whole(options.html, text.encode(), force=options.force)
        files.append(options.html)
    return Inspection(of, options, query, heads, parts, files)


def has_matplotlib() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw_figures(of: Reading, options: InspectOptions, query: int) -> list[Path]:
    """Draw and save a sheet and a profile of each layer, and three figures of the chosen head."""
    from clearhead import plot

    folder, w, (layer, head) = options.plots, of.stack().head(*options.head), options.head
    assert folder is not None  # noqa: S101
    name = f"{layer}.{head}"
    figures: dict[str, Callable[[], Figure]] = {}
    for n, one in of.stack().layers.items():
        figures[f"layer-{n}-heads"] = partial(plot.heads, one.weights, title=f"layer {n}")
        figures[f"layer-{n}-profile"] = partial(plot.profile, one.weights, title=f"layer {n}")
    figures[f"head-{name}-heat"] = partial(plot.heat, w, of.tokens, title=f"head {name}")
    figures[f"head-{name}-received"] = partial(plot.received, w, of.tokens, title=f"head {name}")
    figures[f"head-{name}-row-{query}"] = partial(plot.row, w, query, of.tokens, title=f"head {name}")
    files: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder} cannot be made ({error.strerror or error}): name another folder.") from None
    for stem, make in figures.items():
        files.append(folder / f"{stem}.{options.kind}")
        plot.save(make(), files[-1], force=options.force)
    return files


def print_inspection(inspection: Inspection) -> None:
    """Print the sheet, the row and the names of the files written."""
    from clearhead.explain import text

    console, of = text.console(), inspection.of
    shown = inspection.heads[: inspection.options.most or None]
    layer, head = inspection.options.head
    listed = heaviest(inspection.parts)[:MOST_KEYS]
    lines = [str(of), *(f"{note}." for note in of.notes), heads_table(shown)]
    if more := len(inspection.heads) - len(shown):
        lines.append(f"… and {count(more, 'head')} more: --most 0 shows all, --sort another order.")
    item = f"item {inspection.query}, “{label(of.tokens[inspection.query])}”,"
    lines += ["", f"What {item} looks at in head {layer}.{head}:", *([keys_table(listed)] if listed else [])]
    lines += [remainder_text(inspection.parts, listed) or None, *(f"Wrote {path}." for path in inspection.files)]
    for line in lines:
        if isinstance(line, Table):
            console.print(text.terminal_table(line, console.width))
        elif line is not None:
            console.print(line, markup=False)


def heads_table(heads: Sequence[Head]) -> Table:
    """The sheet, one line for each head."""
    names = [name for name in MEANINGS if name not in ("layer", "head")]
    rows = ((f"{head.layer}.{head.head}", *(number(getattr(head, name)) for name in names)) for head in heads)
    return Table((Column("head"), *(Column(MEANINGS[name][0]) for name in names)), tuple(rows))


def keys_table(parts: Sequence[KeyShare]) -> Table:
    """One line for each key."""
    rows = ((str(part.key), label(part.token), number(part.weight), percent(part.together)) for part in parts)
    return Table((Column("key"), Column("item", "left"), Column("weight"), Column("together")), tuple(rows))
