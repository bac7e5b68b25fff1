"""The small language model worked out by numpy alone, in float64, from its two files; and what its heads do."""

import functools
import json
from importlib import resources
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load

HEADS, LAYERS, WIDTH, CONTEXT = 4, 4, 128, 256
SETTLED, PARTS, ENOUGH = 32, 16, 80
KINDS = ("previous", "induction", "sink", "itself", "punctuation")


class Layer(NamedTuple):
    """What a layer computes of n tokens, in order."""

    entering: np.ndarray
    normed: np.ndarray
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    attended: np.ndarray
    attention: np.ndarray
    between: np.ndarray
    normed_between: np.ndarray
    hidden: np.ndarray
    mlp: np.ndarray
    leaving: np.ndarray
    weights: np.ndarray


class Pass(NamedTuple):
    """The residual stream from the embedding on, and each layer."""

    embedded: np.ndarray
    layers: list[Layer]

    @property
    def stream(self) -> list[np.ndarray]:
        """What each layer reads, and what leaves the last."""
        return [self.embedded, *(layer.leaving for layer in self.layers)]


@functools.cache
def held() -> dict[str, np.ndarray]:
    """Every matrix, (rows, columns) as in the file."""
    read = load(resources.files("clearhead.model").joinpath("tiny.safetensors").read_bytes())
    return {
        name: read[name].astype(np.float64) * read[f"{name}.scales"].astype(np.float64)[:, None]
        for name in read
        if not name.endswith(".scales")
    }


@functools.cache
def written() -> list[bytes]:
    """What each token stands for; the first for nothing."""
    made = [b"", *(bytes([byte]) for byte in range(256))]
    for a, b in json.loads(resources.files("clearhead.model").joinpath("tiny.json").read_text("utf-8"))["merges"]:
        made.append(made[a] + made[b])
    return made


def name(token: int) -> str:
    """A token as it is shown, with the blank before it."""
    return written()[token].decode("utf-8", "backslashreplace") if token else "<s>"


def forward(tokens: list[int]) -> Pass:
    """The pass over some tokens."""
    p = held()
    x = embedded = p["embedding"][tokens]
    n, layers = len(tokens), []
    late = np.triu(np.ones((n, n), bool), 1)
    turn = np.exp(1j * np.outer(np.arange(n), 10_000.0 ** (-np.arange(16) / 16)))
    for at in range(LAYERS):
        u = normed(x)
        q, k, v = (
            (u @ p[f"{at}.{what}"].T).reshape(n, HEADS, 32).transpose(1, 0, 2) for what in ("query", "key", "value")
        )
        q, k = ((part[..., :16] + 1j * part[..., 16:]) * turn for part in (q, k))
        q, k = (np.concatenate([part.real, part.imag], axis=-1) for part in (q, k))
        s = np.where(late, -np.inf, q @ k.transpose(0, 2, 1) / np.sqrt(32))
        e = np.exp(s - s.max(axis=-1, keepdims=True))
        weights = e / e.sum(axis=-1, keepdims=True)
        o = weights @ v
        a = o.transpose(1, 0, 2).reshape(n, WIDTH) @ p[f"{at}.output"].T
        w = normed(x + a)
        h = w @ p[f"{at}.up"].T
        h = h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        m = h @ p[f"{at}.down"].T
        layers.append(Layer(x, u, q, k, v, o, a, x + a, w, h, m, x + a + m, weights))
        x = x + a + m
    return Pass(embedded, layers)


def normed(x: np.ndarray) -> np.ndarray:
    """Rows of root mean square 1."""
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)


def chances(x: np.ndarray) -> np.ndarray:
    """The chance of every token after each row of the residual stream."""
    s = normed(x) @ held()["embedding"].T
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def measured(tokens: list[int]) -> tuple[dict[str, np.ndarray], float]:
    """Each head's mean share of weight by kind, and the share of signs by chance; `tokens` without the first."""
    parts = [[0, *tokens[at : at + CONTEXT - 1]] for at in range(0, len(tokens), CONTEXT - 1)]
    parts = [part for part in parts if len(part) > 2 * SETTLED][:PARTS]
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in (*KINDS, "signs")}
    for part in parts:
        w = np.stack([layer.weights for layer in forward(part).layers])
        rows = np.arange(SETTLED, len(part))
        signs = np.array([is_sign(name(token)) for token in part])
        found["previous"].append(w[..., rows, rows - 1].mean(axis=-1))
        found["sink"].append(w[..., rows, 0].mean(axis=-1))
        found["itself"].append(w[..., rows, rows].mean(axis=-1))
        found["punctuation"].append(w[..., rows, :][..., signs].sum(axis=-1).mean(axis=-1))
        found["signs"].append((np.cumsum(signs) / np.arange(1, len(part) + 1))[SETTLED:].mean())
    means = {kind: np.mean(values, axis=0) for kind, values in found.items() if values}
    return {**means, "induction": induction()}, float(means["signs"])


@functools.cache
def induction() -> np.ndarray:
    """The share on what came next the first time, in random tokens said twice."""
    random, size, found = np.random.default_rng(1), 127, []
    for _ in range(8):
        span = random.integers(257, 2048, size)
        w = np.stack([layer.weights for layer in forward([0, *span.tolist(), *span.tolist()]).layers])
        second = np.arange(size + 5, 2 * size + 1)
        found.append(w[..., second, second - size + 1].mean(axis=-1))
    return np.mean(found, axis=0)


def is_sign(shown: str) -> bool:
    """Whether a token is punctuation."""
    shown = shown.strip()
    return bool(shown) and shown.isascii() and not any(c.isalnum() or c in "<\\" for c in shown)
