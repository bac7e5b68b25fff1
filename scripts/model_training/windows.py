"""What the model is shown in a step: windows of text that begin with `<s>`, some of them a span said again and again.

From text alone, heads that copy (induction) had not come after 5.5 million tokens. If 15 % of the windows repeat, one
comes after 10 million; if half of them do, three come within 2.6 million.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearhead.model.tokens import FIRST_PAIR, START

Tokens = npt.NDArray[np.int64]
SHORTEST_SPAN = 8


@dataclass
class Windows:
    """Draws windows of `length` tokens and the one that follows from a long text, (count, length + 1)."""

    text: npt.NDArray[np.int16]
    length: int
    vocabulary: int
    random: np.random.Generator

    def draw(self, count: int, repeated: float) -> Tokens:
        """Some windows, a share of them `repeated`."""
        first = self.random.integers(0, len(self.text) - self.length, count)
        drawn = np.full((count, self.length + 1), START, np.int64)
        drawn[:, 1:] = self.text[first[:, None] + np.arange(self.length)]
        for row in np.flatnonzero(self.random.random(count) < repeated):
            self._repeat(drawn[row])
        return drawn

    def _repeat(self, window: Tokens) -> None:
        """A span of its text, or as often of random tokens, until the window is full."""
        size = int(self.random.integers(SHORTEST_SPAN, self.length // 2 + 1))
        of_text = self.random.random() < 0.5
        span = window[1 : size + 1].copy() if of_text else self.random.integers(FIRST_PAIR, self.vocabulary, size)
        window[1:] = np.resize(span, self.length)
