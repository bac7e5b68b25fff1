"""A long made-up text with a planted needle: `python -m tests.view.needle [ITEMS]` serves it to look at."""

import re
import sys
from collections.abc import Sequence

import numpy as np

from clearhead import weights
from clearhead.reading.readings import Reading
from clearhead.reading.sources import readings_of

NEEDLE = (31_000, 12_345)  # the query that asks, and the key that answers
WORDS = re.findall(
    r"\w+",
    "the of and a to in he that was it his for with as had you not be her on at by which have or "
    "from this him but all she they were my are me one their so an said them we who would been will no "
    "when there if more out up",
)
HEADS, DIM = 2, 64


def needle_operands(items: int, needle: tuple[int, int] = NEEDLE) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Queries and keys (heads, items, dim) of words drawn at random, and the words; head 1 finds the needle."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(WORDS), items)
    tokens = [f" {WORDS[n]}" for n in drawn]
    kinds = random.standard_normal((len(WORDS), DIM)).astype(np.float32)
    q = (0.55 * kinds[drawn] + 0.55 * random.standard_normal((HEADS, items, DIM))).astype(np.float32)
    k = q.copy()
    k[:, 0] += 30 * q.mean(axis=1)
    asks, answers = needle
    if max(needle) < items:
        q[1, asks] = 4.4 * k[1, answers]
        tokens[answers], tokens[asks] = " lighthouse", " where?"
    tokens[0] = "<s>"
    return q, k, tokens


def needle_reading(items: int = 32_768, needle: tuple[int, int] = NEEDLE) -> Reading:
    """Two heads over words drawn at random: both rest on the first item, and one of them finds the needle."""
    q, k, tokens = needle_operands(items, needle)
    [reading] = readings_of(weights(q, k), tokens, name=f"made up, {items:,} words")
    return reading


def main(arguments: Sequence[str]) -> None:
    """Serve it."""
    from clearhead.reading.answers import Reader
    from clearhead.view.command import ViewOptions, serve_page

    readings = [needle_reading(int(arguments[0]) if arguments else 32_768)]
    serve_page(lambda: Reader(readings), "read", "", ViewOptions(browser=False))


if __name__ == "__main__":
    main(sys.argv[1:])
