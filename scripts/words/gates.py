"""What the shipped files must reach on tests/words: everyday pairs and odd ones out, written before any result.

A word that is missing has cosine 0 in a pair and makes its quadruple wrong.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from words.files import NAMES, read

TESTS = Path(__file__).parents[2] / "tests" / "words"
Numbers = npt.NDArray[Any]

BYTES, AREA, ODD = 2_500_000, 0.99, 94


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    size: int
    area: float
    spearman: float
    odd: tuple[int, int]  # right, of
    missing: list[str]  # of the words in neighbours.txt
    sound: bool  # finite, no row of zeros, a row a word, no word twice

    def __str__(self) -> str:
        return (
            f"pairs: AUC {self.area:.4f} (gate {AREA}), Spearman {self.spearman:.3f}\n"
            f"odd one out: {self.odd[0]} of {self.odd[1]} (gate {ODD})\n"
            f"files: {self.size} bytes (gate {BYTES})\n"
            f"words missing of the neighbour list: {', '.join(self.missing) or 'none'} (gate none)\n"
            f"rows finite, not zero, one a word, no word twice: {'yes' if self.sound else 'no'} (gate yes)"
        )

    @property
    def passed(self) -> bool:
        """Whether every gate is."""
        quality = self.area >= AREA and self.odd[0] >= ODD
        return quality and self.size <= BYTES and not self.missing and self.sound


def measure(folder: Path) -> Figures:
    """The figures of the files in a folder."""
    words, vectors, grams = read(folder)
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    sound = len(set(words)) == len(words) == len(vectors) and bool(
        np.isfinite(vectors).all() and np.isfinite(grams).all() and (length > 0).all()
    )
    direction = dict(zip(words, vectors / np.maximum(length, 1e-12), strict=False))
    pairs = _lines("pairs.txt")
    cosines = np.array([_cosine(direction, a, b) for a, b, _ in pairs])
    grades = np.array([int(grade) for *_, grade in pairs])
    quadruples = _lines("odd_one_out.txt")
    return Figures(
        size=sum((folder / name).stat().st_size for name in NAMES),
        area=_area(cosines[grades > 0], cosines[grades == 0]),
        spearman=_spearman(cosines, grades),
        odd=(sum(_finds_odd(direction, quadruple) for quadruple in quadruples), len(quadruples)),
        missing=[word for (word,) in _lines("neighbours.txt") if word not in direction],
        sound=sound,
    )


def _lines(name: str) -> list[list[str]]:
    text = (TESTS / name).read_text("utf-8")
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


def _cosine(direction: dict[str, Numbers], a: str, b: str) -> float:
    return float(direction[a] @ direction[b]) if a in direction and b in direction else 0.0


def _finds_odd(direction: dict[str, Numbers], quadruple: list[str]) -> bool:
    """Whether the last of four has the least cosines with the others."""
    if any(word not in direction for word in quadruple):
        return False
    x = np.stack([direction[word] for word in quadruple])
    return int((x @ x.T).sum(axis=1).argmin()) == 3


def _area(related: Numbers, unrelated: Numbers) -> float:
    """The chance that a related pair has the larger cosine, ties half: the area under the ROC curve."""
    above = related[:, None] > unrelated
    return float(above.mean() + (related[:, None] == unrelated).mean() / 2)


def _spearman(a: Numbers, b: Numbers) -> float:
    """The correlation of the ranks, equal values sharing their mean rank."""

    def ranks(x: Numbers) -> Numbers:
        below, upto = np.searchsorted(np.sort(x), x, "left"), np.searchsorted(np.sort(x), x, "right")
        return (below + upto) / 2

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])
