"""Made-up attention that a reader must find something in: `python -m tests.view.made_up alignment|patch`."""

import io
import re
import sys
from collections.abc import Sequence

import numpy as np

from clearhead import full, weights
from clearhead.reading.readings import Grid, Reading, Sees, Stack, StackLayer

GERMAN = re.findall(
    r"\S+", "Die Fähre verlässt die Insel im Morgengrauen . Der Lotse hat gestern den Kanal vermessen ."
)
ENGLISH = re.findall(r"\S+", "The ferry leaves the island at dawn . Yesterday the pilot measured the channel .")
ALIGNED = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 8, 12, 13, 11, 14]  # the English word that each German word looks at
GRID = Grid(12, 16, 1)  # of a picture 16 patches wide, after one token that is none
BALL = (3, 11)  # the row and column of the patch that one head looks at from everywhere
DIM = 32
HOSTILE = (
    "=1+1", '"', '","', "\n", "\r\n", "\r", "", "   ", " a", "<script>alert(1)</script>", "</script>", "\u202eabc",
    "\U0001f600", "-1", "+1", "@x", "\t", "'", "\\", "\x00", "\x1b[1m", "&amp;", "\ufffe", "\u2028", "שלום",
    "👩\u200d👩\u200d👧", "\ud800", "$x$", "漢字", "x" * 10_000, "\u200b",
    "Donaudampfschifffahrtsgesellschaftskapitänsmütze" * 3,
)  # fmt: skip
TOLD = [(name if len(name) <= 200 else f"{name[:200]}…").encode("utf-8", "replace").decode() for name in HOSTILE]


def layer_of(number: int, q: np.ndarray, k: np.ndarray) -> StackLayer:
    """A layer in which every key is seen."""
    w = weights(q, k, mask=full())
    heads = tuple(range(len(q)))
    offset = k.shape[1] - q.shape[1]
    return StackLayer(number, heads, heads, q.shape[1], k.shape[1], Sees(None, None, offset), lambda: w)


def alignment_reading() -> Reading:
    """Cross-attention of a translation: head 2 of layer 1 aligns the words, the others are diffuse."""
    random = np.random.default_rng(3)
    layers = {}
    for number in range(2):
        q = random.standard_normal((4, len(GERMAN), DIM)).astype(np.float32)
        k = random.standard_normal((4, len(ENGLISH), DIM)).astype(np.float32)
        if number == 1:
            q[2] = 1.1 * k[2, ALIGNED] + 0.3 * q[2]
        layers[number] = layer_of(number, q, k)
    names = {"queries": GERMAN, "keys": ENGLISH}
    stack = Stack("cross", layers, lambda layer, side: names[side], steps=(len(GERMAN),), crosses=True)
    return Reading("a made-up translator", {"cross": stack}, "German to English")


def patch_reading() -> Reading:
    """A picture's patches: head 1 of layer 1 looks at the ball from every patch, the others at what is near."""
    from PIL import Image, ImageDraw

    random = np.random.default_rng(5)
    patches = GRID.rows * GRID.columns
    place = np.stack(np.divmod(np.arange(patches), GRID.columns), -1) / 3.0
    near = np.concatenate([np.cos(place), np.sin(place)], -1)
    layers = {}
    for number in range(2):
        x = np.concatenate([np.zeros((3, GRID.before, 4)), np.broadcast_to(near, (3, patches, 4))], 1)
        q = 1.5 * x + 0.2 * random.standard_normal(x.shape)
        k = 3.0 * x + 0.2 * random.standard_normal(x.shape)
        if number == 1:
            q[1] = [1.0, 0.5, -0.5, 1.0]
            k[1, GRID.before + BALL[0] * GRID.columns + BALL[1]] = [6.0, 3.0, -3.0, 6.0]
        layers[number] = layer_of(number, q.astype(np.float32), k.astype(np.float32))
    size = 24
    image = Image.new("RGB", (GRID.columns * size, GRID.rows * size), (120, 170, 225))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 8 * size, image.width, image.height), fill=(70, 140, 60))
    draw.rectangle((2 * size, 4 * size, 6 * size, 9 * size), fill=(170, 90, 70))
    draw.ellipse([BALL[1] * size, BALL[0] * size, (BALL[1] + 1) * size, (BALL[0] + 1) * size], fill=(235, 60, 50))
    file = io.BytesIO()
    image.save(file, "PNG")
    names = ["[class]", *(f"row {r + 1}, column {c + 1}" for r in range(GRID.rows) for c in range(GRID.columns))]
    stack = Stack("vision", layers, lambda layer, side: names, steps=(len(names),), grid=GRID)
    return Reading("a made-up eye", {"vision": stack}, "a house and a ball", picture=file.getvalue())


def hostile_reading() -> Reading:
    """Tokens that break what is careless with text, twice over; four heads of two key heads, in two layers."""
    random = np.random.default_rng(7)
    names, size = (*HOSTILE, *HOSTILE), 2 * len(HOSTILE)
    layers = {}
    for number in (3, 5):
        q, k = random.standard_normal((2, 4, size, DIM)).astype(np.float32)
        w = weights(q, k[[0, 2]])
        layers[number] = StackLayer(
            number,
            (0, 1, 2, 3),
            (0, 0, 1, 1),
            size,
            size,
            Sees(None, 0, 0),
            lambda w=w: w,
        )
    ids = np.array([HOSTILE.index(name) for name in names])
    stack = Stack("decoder", layers, lambda layer, side: names, steps=(size,), ids=ids)
    return Reading("<b>hostile</b> & sons", {"decoder": stack}, "hostile")


READINGS = {"alignment": alignment_reading, "patch": patch_reading, "hostile": hostile_reading}


def main(arguments: Sequence[str]) -> None:
    """Serve some of them."""
    from clearhead.reading.answers import Reader
    from clearhead.view.command import ViewOptions, serve_page

    readings = [READINGS[name]() for name in arguments or READINGS]
    serve_page(lambda: Reader(readings), "read", "", ViewOptions(browser=False))


if __name__ == "__main__":
    main(sys.argv[1:])
