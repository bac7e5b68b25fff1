"""`clearhead.view.show`: the page from Python, on whatever attention a program has at hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearhead.errors import InputError
from clearhead.reading.answers import Reader
from clearhead.reading.readings import Reading
from clearhead.reading.sources import readings_of
from clearhead.view.command import ViewOptions, serve_page, with_picture


def show(
    *sources: Any,
    tokens: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    image: str | Path | None = None,
    port: int | None = None,
    browser: bool = True,
) -> None:
    """Open the page on a watch, on weights, or on several of them to compare; returns when you press Ctrl-C.

    `sources` are watches (`clearhead.watch`, `load_watch`), weights (heads, queries, keys), `attend`'s results, layers
    of a watch, or matrices of weights, as arrays or tensors of that shape; two of them stand side by side. `tokens`
    name the items of weights, `names` the sources, such as ("before", "after"), and `image` is a picture file to lie
    below a watch's patches. Needs the extra `view`. Raises InputError, FileError or MachineError.

        with clearhead.watch(model, tokenizer=tokenizer) as before:
            model(ids)
        with clearhead.intervene(model) as change:
            change.ablate(5, [3])
            with clearhead.watch(model, tokenizer=tokenizer) as after:  # inside: its weights are the changed ones
                model(ids)
        clearhead.view.show(before, after, names=("before", "after"))
    """
    found = readings_by_source(sources, tokens, names)
    reader = Reader([reading for each in found for reading in each])
    beside = f"panes=2&reading=0&reading2={len(found[0])}" if len(found) == 2 else ""
    if image is not None:
        reader.readings[:] = [with_picture(reading, Path(image)) for reading in reader.readings]
    serve_page(lambda: reader, "read", beside, ViewOptions(port=port, browser=browser))


def readings_from(
    sources: Sequence[Any], tokens: Sequence[str] | None = None, names: Sequence[str] | None = None
) -> list[Reading]:
    """All that there is to read of several sources. Raises InputError."""
    return [reading for found in readings_by_source(sources, tokens, names) for reading in found]


def readings_by_source(
    sources: Sequence[Any], tokens: Sequence[str] | None = None, names: Sequence[str] | None = None
) -> list[list[Reading]]:
    """What there is to read of each of several sources. Raises InputError."""
    if not sources:
        raise InputError("There is nothing to show: give a watch, or weights.")
    if names is not None and (isinstance(names, str) or len(names) != len(sources)):
        raise InputError(f"names={names!r} do not name {len(sources)} sources: give one for each, as a list.")
    labels = [None] * len(sources) if names is None else [str(name) for name in names]
    return [
        [reading if label is None else replace(reading, name=label) for reading in readings_of(source, tokens)]
        for source, label in zip(sources, labels, strict=True)
    ]
