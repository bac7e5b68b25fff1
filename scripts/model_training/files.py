"""The two files that ship: tiny.safetensors, eight bits a number and a scale a row, and tiny.json, sizes and tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from clearhead.model import Model, Tokenizer
from clearhead.model.model import TOKENS_FILE, WEIGHTS_FILE
from clearhead.model.parameters import SCALES, dequantize
from model_training.network import Network, Sizes

NAMES = (WEIGHTS_FILE, TOKENS_FILE)
SMALLEST = 1e-7  # of a scale, so that a row of zeros stays one
Merges = list[tuple[int, int]]


def write(folder: Path, network: Network, sizes: Sizes, merges: Merges) -> None:
    """Write both files."""
    (folder / WEIGHTS_FILE).write_bytes(save(quantised(network)))
    told = {"heads": sizes.heads, "context": sizes.context, "merges": merges}
    (folder / TOKENS_FILE).write_text(json.dumps(told, separators=(",", ":")) + "\n", "utf-8")


def as_shipped(network: Network, sizes: Sizes, merges: Merges) -> Model:
    """What a reader of the files would get."""
    return Model(dequantize(quantised(network), sizes.heads, sizes.context), Tokenizer(merges))


def quantised(network: Network) -> dict[str, npt.NDArray[Any]]:
    """Each matrix (rows, columns) as whole numbers up to 127, and what each row is to be multiplied by (rows,)."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in network.shipped():
        matrix = tensor.detach().numpy()
        scale = (np.abs(matrix).max(axis=1) / 127).astype(np.float16)
        steps = np.round(matrix / np.maximum(scale.astype(np.float32), SMALLEST)[:, None])
        tensors[name], tensors[name + SCALES] = np.clip(steps, -127, 127).astype(np.int8), scale
    return tensors
