"""Answers to questions about weights that need no matrix.

`questions` lists what may be asked, `definition.weights` defines its meaning, `answers` asks a `sweep` for the sums.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights import joined
from clearhead.attention_weights.questions import ANSWERED_BY, LISTS, MAX_OVER_HEADS, NEEDS, SHARES
from clearhead.errors import InputError, ShapeError


@dataclass(frozen=True)
class Summary(Mapping[str, Array]):
    """Answers by name, as attributes or items: `summary.entropy`, `summary["entropy"]`.

    For each query, (..., queries): `entropy` in nats, `effective` = e^entropy, mean `distance`, the weight of the
    `first` key, the share `within` a window, the largest weight `off_first`, the `sink_share`, and with one more axis
    `top_weights`, `top_keys`, `carriers`, `groups`, `matches` and `distances`. For each key, (..., keys):
    `received_sum`, `received_max`, `received_mean`. `names` say what stands along an answer's last axis:
    `group_names`, `match_names`, and `distance_edges`, between two of which range r lies: edges[r] ≤ |i − j| <
    edges[r + 1].
    """

    answers: dict[str, Array]
    names: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    extent: joined.Extent | None = field(default=None, repr=False)

    @classmethod
    def stack(cls, summaries: Sequence["Summary"]) -> "Summary":
        """Stack the same questions about weights of one shape, as of several layers, on a new first axis.

        Raises InputError if there are none, or answers or their names differ.

        >>> from clearhead import weights
        >>> s = weights([[0.0], [0.0]], [[0.0], [0.0]]).summary("groups", groups={"start": [0]})
        >>> both = Summary.stack([s, s])
        >>> both.groups.shape, both.group_names
        ((2, 2, 1), ('start',))
        """
        shapes = [{name: x.shape for name, x in s.answers.items()} for s in summaries]
        names = [s.names for s in summaries]
        alike = all(x == shapes[0] for x in shapes) and all(x == names[0] for x in names)
        if not summaries or not alike:
            raise InputError(
                f"summaries of {shapes} do not stack: give at least one, all with the same questions, shapes and names."
            )
        answers = {name: np.stack([s.answers[name] for s in summaries]) for name in shapes[0]}
        return cls(answers, names[0])

    def __getitem__(self, name: str) -> Array:
        return self.answers[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("answers", "names"):
            raise AttributeError(name)
        if name in self.answers:
            return self.answers[name]
        if name in self.names:
            return self.names[name]
        question = ANSWERED_BY.get(name, name)
        cure = f"ask for it with summary({question!r})" if question in NEEDS else f"it has {', '.join(self.answers)}"
        raise AttributeError(f"this summary has no {name}: {cure}.")

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def __repr__(self) -> str:
        return f"Summary({', '.join(f'{name} {x.shape}' for name, x in self.answers.items())})"

    @classmethod
    def of_rows(cls, pieces: Sequence["Summary"]) -> "Summary":
        """Join the same questions about pieces of the queries, in ascending order, over the same keys.

        Answers for each query, and `received_max`, have the bits of one summary over all queries. `received_sum` adds
        the pieces in the order given, with the same bits for the same pieces; one summary adds up to 16 groups of its
        queries, so that last bits may differ. Raises InputError for `received_mean`, for pieces out of order
        (as far as `at=` or `queries=` says where they stand), or if the questions differ.

        >>> from clearhead import causal, weights
        >>> x = [[0.0], [0.0], [0.0], [0.0]]
        >>> parts = [weights(x[n : n + 2], x, mask=causal(at=n)).summary("effective", "received_sum") for n in (0, 2)]
        >>> s = Summary.of_rows(parts)
        >>> s.effective.round(3), s.received_sum.round(3)
        (array([1., 2., 3., 4.]), array([2.083, 1.083, 0.583, 0.25 ]))
        """
        return cls(*joined.of_rows(pieces))

    @classmethod
    def of_keys(cls, pieces: Sequence["Summary"]) -> "Summary":
        """Join the same questions about stretches of the keys, in ascending order, by the same queries.

        Answers for each key, `first`, `off_first`, `top` and `sink_share` have the bits of one summary over all keys.
        `entropy`, `effective`, `distance`, `within`, `distances`, `groups` and `matches` are sums over the stretches in
        the order given, whose last bits may differ from one sum over all keys. Raises InputError for `carriers`, which
        need whole rows, for stretches out of order, or if the questions differ.

        >>> from clearhead import causal, partial, weights
        >>> x = np.zeros((2050, 1))
        >>> lse = partial(x[-2:], x, x, mask=causal(at=2048)).finish().lse
        >>> parts = [
        ...     weights(x[-2:], x[a:b], mask=causal(at=2048), lse=lse, first_key=a).summary("first", "received_sum")
        ...     for a, b in ((0, 2048), (2048, 2050))
        ... ]
        >>> Summary.of_keys(parts).received_sum.shape
        (2050,)
        """
        return cls(*joined.of_keys(pieces))

    def over_heads(self, key_heads: int | None = None) -> "Summary":
        """Average over heads; maxima stay maxima, and lists of keys are left out.

        With `key_heads`, average over those heads that share a key head: the axis of heads becomes one of key heads.
        For sums of weights (`received_sum`, `received_mean`, `distance`, `first`, `within`, `sink_share`, `distances`,
        `groups`, `matches`), this equals the answer for weights averaged over heads. Raises ShapeError.

        >>> from clearhead import weights
        >>> s = weights([[[0.0]]] * 4, [[[0.0]]]).summary("first")
        >>> s.over_heads().first.shape, s.over_heads(key_heads=2).first.shape
        ((1,), (2, 1))
        """
        joined = {}
        for name, x in self.answers.items():
            if name in LISTS:
                continue
            axis = x.ndim - (3 if name in SHARES else 2)
            if key_heads is not None:
                count = x.shape[axis]
                if key_heads < 1 or count % key_heads:
                    raise ShapeError(f"{count} heads do not share {key_heads} key heads: give a divisor of {count}.")
                x = x.reshape(*x.shape[:axis], key_heads, count // key_heads, *x.shape[axis + 1 :])
                axis += 1
            joined[name] = (x.max if name in MAX_OVER_HEADS else x.mean)(axis=axis)
        return Summary(joined, self.names)


def carriers(rows: Array, shares: Sequence[float]) -> Array:
    """The fewest keys that carry each share of each row's weight, to a millionth: (..., shares)."""
    total = np.sort(rows, axis=-1)[..., ::-1].cumsum(axis=-1, dtype=np.float64)
    wanted = np.asarray(shares) * total[..., -1:] * (1 - 1e-6)
    flat, goals = total.reshape(-1, total.shape[-1]), wanted.reshape(-1, len(shares))
    counts = [np.searchsorted(sums, goal) + (goal > 0) for sums, goal in zip(flat, goals, strict=True)]
    return np.array(counts, np.int64).reshape(*rows.shape[:-1], len(shares))
