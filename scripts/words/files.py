"""The files that ship: vocabulary.txt, irregular.txt, and words.safetensors, 8 bits a number and a scale a row."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

Vectors = npt.NDArray[np.float32]
NAMES = ("words.safetensors", "vocabulary.txt", "irregular.txt")


def write(folder: Path, words: list[str], vectors: Vectors, grams: Vectors, irregular: list[tuple[str, str]]) -> None:
    """Write them; a word is a line, its vector the row of the same number; an irregular form stands before its word."""
    tensors = {}
    for name, scale, x in (("vectors", "scales", vectors), ("grams", "gram_scales", grams)):
        tensors[name], tensors[scale] = _quantized(x)
    (folder / "words.safetensors").write_bytes(save(tensors))
    (folder / "vocabulary.txt").write_text("\n".join(words) + "\n", "utf-8")
    (folder / "irregular.txt").write_text("".join(f"{form} {plain}\n" for form, plain in irregular), "utf-8")


def read(folder: Path) -> tuple[list[str], Vectors, Vectors]:
    """The words, their vectors and the bucket vectors, as a reader of the files gets them."""
    tensors = load_file(folder / "words.safetensors")
    words = (folder / "vocabulary.txt").read_text("utf-8").splitlines()
    vectors, grams = (
        tensors[name].astype(np.float32) * tensors[scale].astype(np.float32)[:, None]
        for name, scale in (("vectors", "scales"), ("grams", "gram_scales"))
    )
    return words, vectors, grams


def _quantized(x: Vectors) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Whole numbers up to 127 (rows, dim), and what each row is to be multiplied by (rows,)."""
    scale = (np.abs(x).max(axis=1) / 127).astype(np.float16)
    steps = np.round(x / np.maximum(scale.astype(np.float32), 1e-12)[:, None])
    return np.clip(steps, -127, 127).astype(np.int8), scale
