"""From the packages to one long row of tokens, without what is held out."""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearhead.model import Tokenizer
from model_training import pairs, texts
from model_training.gates import HELD_OUT
from model_training.sources import fetch

LONG = 80  # characters of a paragraph that is no commonplace


def read(folder: Path) -> tuple[npt.NDArray[np.int16], list[tuple[int, int]]]:
    """All tokens to train on, source after source, and the pairs that tokens join."""
    trained, _ = texts.split(texts.texts(fetch(folder)))
    for paragraph in HELD_OUT.read_text("utf-8").splitlines():
        if len(paragraph) > LONG and any(paragraph in text for text in trained.values()):
            sys.exit(f"{HELD_OUT} is to be held out, but “{paragraph[:LONG]}…” is trained on. Hold it out too.")
    merges = pairs.learn(trained.values())
    tokenizer = Tokenizer(merges)
    rows = {name: np.array(tokenizer.encode(text)[1:], np.int16) for name, text in trained.items()}
    for name, row in rows.items():
        print(f"{name}: {len(trained[name]):,} characters, {len(row):,} tokens")
    return np.concatenate(list(rows.values())), merges
