"""The command `clearhead inspect`: from a model and a text to a sheet on the terminal, figures and a page.

Decides what is checked before anything is computed, and what is written where; nothing half-written is left behind.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clearhead.errors import FileError, InputError
from clearhead.files.writing import write_whole
from clearhead.inspecting.heads import ORDERS, Head, Inspected, Part, carried, from_vectors, ordered, read_text, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    sort: str
    most: int
    head: tuple[int, int]
    row: int
    plots: Path | None
    kind: str
    html: Path | None
    force: bool


@dataclass(frozen=True, eq=False)
class Found:
    """What was found: heads in order, the chosen row's heaviest keys, and the files that were written."""

    of: Inspected
    wanted: Wanted
    query: int
    heads: list[Head]
    parts: list[Part]
    files: list[Path]

    def as_json(self) -> str:
        """All of it for programs."""
        import json

        layer, head = self.wanted.head
        about = {
            "name": self.of.name,
            "tokens": self.of.tokens,
            "heads": [asdict(head) for head in self.heads],
            "row": {"layer": layer, "head": head, "query": self.query, "keys": [asdict(part) for part in self.parts]},
            "files": [str(path) for path in self.files],
        }
        return json.dumps(about, indent=2)


def inspected(model: str, text: Sequence[str]) -> Inspected:
    """The attention that a name and a text stand for."""
    if model == "vectors":
        if not text:
            raise InputError("Nothing to inspect: give a text, or a file that holds one.")
        return from_vectors(read_text(text))
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
    check(wanted)
    w, count = of.head(*wanted.head), len(of.tokens)
    if not -count <= wanted.row < count:
        raise InputError(f"--row {wanted.row} is outside the {count} items: give 0 to {count - 1}, or -1 to {-count}.")
    query = wanted.row % count
    heads = ordered(list(sheet(of, advance)), wanted.sort)
    parts = carried(w, query, of.tokens)
    files = draw(of, wanted, query) if wanted.plots else []
    if wanted.html:
        from clearhead.inspecting.page import page

        text = page(of, heads, wanted.head, query, parts, has_matplotlib())
        write_whole(wanted.html, text.encode(), force=wanted.force)
        files.append(wanted.html)
    return Found(of, wanted, query, heads, parts, files)


def check(wanted: Wanted) -> None:
    """What can be refused before anything is computed."""
    if wanted.sort not in ORDERS:
        raise InputError(f"--sort {wanted.sort} is unknown: use {', '.join(ORDERS)}.")
    if wanted.kind not in ("png", "svg", "pdf"):
        raise InputError(f"--kind {wanted.kind} is unknown: use png, svg or pdf.")
    if wanted.plots and not has_matplotlib():
        raise InputError("--plots needs matplotlib: pip install clearhead[plot].")
    if wanted.html and wanted.html.exists() and not wanted.force:
        raise FileError(f"{wanted.html} exists already: choose another name, or replace it with --force.")
    if wanted.plots and wanted.plots.exists() and not wanted.plots.is_dir():
        raise FileError(f"{wanted.plots} is a file: name a folder.")


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
        raise FileError(f"{folder} cannot be made ({error.strerror or error}).") from None
    for stem, make in figures.items():
        files.append(folder / f"{stem}.{wanted.kind}")
        plot.save(make(), files[-1], force=wanted.force)
    return files


def show(found: Found) -> None:
    """Print the sheet, the row and where files are."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from clearhead.explain.wording import label

    to, of = Console(highlight=False), found.of
    to.print(escape(str(of)))
    for note in of.notes:
        to.print(escape(note) + ".")
    shown = found.heads[: found.wanted.most or None]
    sheet = Table(
        "head", "entropy", "keys, effectively", "mean distance", "on the first key", "strongest off it", box=None
    )
    for column in sheet.columns:
        column.justify = "right"
    for head in shown:
        numbers = (head.entropy, head.effective, head.distance, head.first, head.strongest)
        sheet.add_row(f"{head.layer}.{head.head}", *(f"{x:.4g}" for x in numbers))
    to.print(sheet)
    if len(shown) < len(found.heads):
        to.print(f"… and {len(found.heads) - len(shown)} heads more: --most 0 shows all, --sort another order.")
    layer, head_number = found.wanted.head
    token = escape(label(of.tokens[found.query]))
    to.print(f"\nWhat item {found.query}, “{token}”, looks at in head {layer}.{head_number}, to 99 % of its weight:")
    row = Table("key", "item", "weight", "together", box=None)
    for at in (0, 2, 3):
        row.columns[at].justify = "right"
    for part in found.parts[:40]:
        row.add_row(str(part.key), escape(label(part.token)), f"{part.weight:.4f}", f"{100 * part.together:.1f} %")
    to.print(row)
    if len(found.parts) > 40:
        to.print(f"… and {len(found.parts) - 40} keys more: --json lists all.")
    for path in found.files:
        to.print(f"Wrote {escape(str(path))}.")
