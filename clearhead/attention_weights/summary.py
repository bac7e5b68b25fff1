"""Questions about weights that need no matrix: their names, the sums each needs, and the answers.

`definition.weights` defines their meaning; `sweep` computes the sums.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import InputError

NEEDS = {  # the sum that each answer is computed from
    "entropy": "entropy",
    "effective": "entropy",
    "received_sum": "received_sum",
    "received_max": "received_max",
    "received_mean": "received_sum",
    "distance": "distance",
    "first": "first",
    "within": "within",
    "off_first": "off_first",
    "top": "top",
    "carriers": "carriers",
}
POSITIONAL = ("distance", "within", "first", "off_first")  # they take a key's position from its place
USUAL = tuple(name for name in NEEDS if name != "carriers")  # carriers are slow: each row is sorted
PER_KEY = ("received_sum", "received_max", "received_mean")
LISTS = ("top_weights", "top_keys", "carriers")
MAX_OVER_HEADS = ("received_max", "off_first")


@dataclass(frozen=True)
class Summary(Mapping[str, Array]):
    """Answers by name, as attributes or items: `summary.entropy`, `summary["entropy"]`.

    For each query, (..., queries): `entropy` in nats, `effective` = e^entropy, mean `distance`, the weight of the
    `first` key, the share `within` a window, the largest weight `off_first`, and with one more axis `top_weights`,
    `top_keys` and `carriers`. For each key, (..., keys): `received_sum`, `received_max`, `received_mean`.
    """

    answers: dict[str, Array]

    def __getitem__(self, name: str) -> Array:
        return self.answers[name]

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_") or name == "answers":
            raise AttributeError(name)
        if name in self.answers:
            return self.answers[name]
        known = name in NEEDS or name in LISTS
        question = "top" if name.startswith("top_") else name
        cure = f"ask for it with summary({question!r})" if known else f"it has {', '.join(self.answers)}"
        raise AttributeError(f"this summary has no {name}: {cure}.")

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def __repr__(self) -> str:
        return f"Summary({', '.join(f'{name} {x.shape}' for name, x in self.answers.items())})"

    def over_heads(self) -> "Summary":
        """Average over heads; maxima stay maxima, and lists of keys are left out.

        For sums of weights (`received_sum`, `received_mean`, `distance`, `first`, `within`), this equals the answer for
        weights averaged over heads.
        """
        joined = {}
        for name, x in self.answers.items():
            if name not in LISTS:
                joined[name] = (x.max if name in MAX_OVER_HEADS else x.mean)(axis=-2)
        return Summary(joined)


def checked_questions(names: Sequence[str], *, placed: bool = True) -> tuple[str, ...]:
    """Check the names of questions; without any, the usual ones. Unless keys are `placed`, none may read positions."""
    for name in names:
        if name not in NEEDS:
            raise InputError(f"summary({name!r}) is unknown: ask for some of {', '.join(NEEDS)}.")
        if name in POSITIONAL and not placed:
            raise InputError(
                f"summary({name!r}) reads positions, but these weights are over the keys that a cache kept: read rows "
                "with w.row(i), whose columns stand at cache.positions()."
            )
    return tuple(names) or tuple(name for name in USUAL if placed or name not in POSITIONAL)


def carriers(rows: Array, shares: Sequence[float]) -> Array:
    """The fewest keys that carry each share of each row's weight, to a millionth: (..., shares)."""
    total = np.sort(rows, axis=-1)[..., ::-1].cumsum(axis=-1, dtype=np.float64)
    wanted = np.asarray(shares) * total[..., -1:] * (1 - 1e-6)
    flat, goals = total.reshape(-1, total.shape[-1]), wanted.reshape(-1, len(shares))
    counts = [np.searchsorted(sums, goal) + (goal > 0) for sums, goal in zip(flat, goals, strict=True)]
    return np.array(counts, np.int64).reshape(*rows.shape[:-1], len(shares))
