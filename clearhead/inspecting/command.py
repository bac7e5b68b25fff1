"""The command `clearhead inspect`: from a model and a text to a sheet on the terminal, figures and a page.

Decides what is checked before anything is computed, and what is written where; nothing half-written is left behind.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clearhead.attention_weights.notebook import MEANINGS
from clearhead.errors import FileError, InputError
from clearhead.explain.blocks import Column, Table
from clearhead.files.text import read_text
from clearhead.files.writing import write_whole
from clearhead.inspecting.heads import (
    ORDERS,
    Head,
    Inspected,
    Part,
    carried,
    from_vectors,
    index_of,
    left_out,
    ordered,
    ranked,
    sheet,
)
from clearhead.wording import count, label, number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_KEYS = 40  # of a row, on a terminal


@dataclass(frozen=True)
class Wanted:
    """What was asked for; raises InputError or FileError for what can be refused before a model is read."""

    sort: str
    most: int
    head: tuple[int, int]
    row: int | str  # an item by its number, or by its word
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
            raise InputError("--plots needs matplotlib: pip install clearhead[plot].")
        if self.plots and self.plots.exists() and not self.plots.is_dir():
            raise FileError(f"{self.plots} is a file: name a folder.")
        layer, head = self.head
        for path in (self.html, self.plots and self.plots / f"head-{layer}.{head}-heat.{self.kind}"):
            if path and path.exists() and not self.force:
                raise FileError(f"{path} exists already: choose another name, or replace it with --force.")


@dataclass(frozen=True, eq=False)
class Found:
    """What was found: heads in order, the chosen row's keys by falling weight, and the files that were written."""

    of: Inspected
    wanted: Wanted
    query: int
    heads: list[Head]
    parts: list[Part]
    files: list[Path]

    def as_json(self) -> str:
        """All of it for programs: every head's numbers, every key of the row."""
        import json

        layer, head = self.wanted.head
        about = {
            "name": self.of.name,
            "notes": self.of.notes,
            "tokens": self.of.tokens,
            "heads": [asdict(head) for head in self.heads],
            "row": {"layer": layer, "head": head, "query": self.query, "keys": [asdict(part) for part in self.parts]},
            "files": [str(path) for path in self.files],
        }
        return json.dumps(about, indent=2)


def inspected(model: str, text: Sequence[str], embeddings: Path | None = None) -> Inspected:
    """The attention that a name and a text stand for."""
    if model == "vectors":
        if not text:
            raise InputError("Nothing to inspect: give a text, or a file that holds one.")
        return from_vectors(read_text(text), embeddings)
    if embeddings:
        raise InputError(f"--embeddings are word vectors, and {model} has its own: give vectors in its place.")
    path = Path(model)
    if path.is_file():
        if text:
            raise InputError(f"{model} is a saved watch, which holds its text's attention already: give no text.")
        from clearhead.inspecting.models import from_watch

        return from_watch(path)
    if not path.is_dir():
        raise FileError(f"{model} is neither a folder with a model nor a saved watch: give one, or vectors.")
    if not text:
        raise InputError("Nothing to inspect: give a text, or a file that holds one.")
    from clearhead.inspecting.models import from_folder

    return from_folder(path, read_text(text))


def written(of: Inspected, wanted: Wanted, advance: Callable[[int], None]) -> Found:
    """Compute the sheet and write the files that are wanted."""
    w = of.head(*wanted.head)
    query = index_of(wanted.row, of.tokens[: w.shape[0]])
    heads = ordered(list(sheet(of, advance)), wanted.sort)
    parts = ranked(w, query, of.tokens)
    files = draw(of, wanted, query) if wanted.plots else []
    if wanted.html:
        from clearhead.inspecting.page import page

        text = page(of, heads, wanted.head, query, parts, has_matplotlib())
        write_whole(wanted.html, text.encode(), force=wanted.force)
        files.append(wanted.html)
    return Found(of, wanted, query, heads, parts, files)


def has_matplotlib() -> bool:
    """Whether figures can be drawn."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw(of: Inspected, wanted: Wanted, query: int) -> list[Path]:
    """All figures: a sheet and a profile of each layer, and the chosen head."""
    from clearhead import plot

    folder, w, (layer, head) = wanted.plots, of.head(*wanted.head), wanted.head
    assert folder is not None  # noqa: S101
    name = f"{layer}.{head}"
    figures: dict[str, Callable[[], Figure]] = {}
    for n, own in of.layers.items():
        figures[f"layer-{n}-heads"] = partial(plot.heads, own, title=f"layer {n}")
        figures[f"layer-{n}-profile"] = partial(plot.profile, own, title=f"layer {n}")
    figures[f"head-{name}-heat"] = partial(plot.heat, w, of.tokens, title=f"head {name}")
    figures[f"head-{name}-received"] = partial(plot.received, w, of.tokens, title=f"head {name}")
    figures[f"head-{name}-row-{query}"] = partial(plot.row, w, query, of.tokens, title=f"head {name}")
    files: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder} cannot be made ({error.strerror or error}): name another folder.") from None
    for stem, make in figures.items():
        files.append(folder / f"{stem}.{wanted.kind}")
        plot.save(make(), files[-1], force=wanted.force)
    return files


def show(found: Found) -> None:
    """Print the sheet, the row and where files are."""
    from clearhead.explain import text

    to, of = text.console(), found.of
    shown = found.heads[: found.wanted.most or None]
    layer, head = found.wanted.head
    listed = carried(found.parts)[:MOST_KEYS]
    lines = [str(of), *(f"{note}." for note in of.notes), sheet_of(shown)]
    if more := len(found.heads) - len(shown):
        lines.append(f"… and {count(more, 'head')} more: --most 0 shows all, --sort another order.")
    item = f"item {found.query}, “{label(of.tokens[found.query])}”,"
    lines += ["", f"What {item} looks at in head {layer}.{head}:", *([row_of(listed)] if listed else [])]
    lines += [left_out(found.parts, listed) or None, *(f"Wrote {path}." for path in found.files)]
    for line in lines:
        if isinstance(line, Table):
            to.print(text.grid(line, to.width))
        elif line is not None:
            to.print(line, markup=False)


def sheet_of(heads: Sequence[Head]) -> Table:
    """A line for each head."""
    told = [name for name in MEANINGS if name not in ("layer", "head")]
    rows = ((f"{head.layer}.{head.head}", *(number(getattr(head, name)) for name in told)) for head in heads)
    return Table((Column("head"), *(Column(MEANINGS[name][0]) for name in told)), tuple(rows))


def row_of(parts: Sequence[Part]) -> Table:
    """A line for each key of a row."""
    rows = ((str(part.key), label(part.token), number(part.weight), percent(part.together)) for part in parts)
    return Table((Column("key"), Column("item", "left"), Column("weight"), Column("together")), tuple(rows))
