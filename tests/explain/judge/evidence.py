"""The judge: one case, what is true of it, what the page claims, and what it must not keep silent."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tests.explain.judge import programs
from tests.explain.judge.names import Names
from tests.explain.judge.ranges import Range, UntrueError, exact, figure
from tests.explain.judge.rules import Rule, typed
from tests.explain.judge.truth import Ends, Truth, total

OPTIONAL = ("numeric names",)  # what a file of vectors may say of itself


class Judge:
    """What is known of one input, and what has been said of it so far."""

    def __init__(
        self,
        x: np.ndarray,
        tokens: Sequence[str],
        position: int,
        mask: tuple,
        rules: tuple[Rule, ...],
        *,
        vocabulary: Any = None,
        text: str | None = None,
        embeddings: Path | None = None,
        keys: np.ndarray | None = None,
        values: np.ndarray | None = None,
        scale: float = 1.0,
    ) -> None:
        self.truth = Truth(x, position, mask, rules, keys=keys, values=values, scale=scale)
        self.tokens, self.mask, self.what = list(tokens), mask, ""
        self.vocabulary, self.text, self.embeddings = vocabulary, text, embeddings
        own = [vocabulary is None or vocabulary.own(token) for token in tokens]
        self.names = Names(tokens, [not one for one in own])
        self.mask_name = typed(mask)
        self.json: dict[str, Any] = {}
        self.origins: list[dict[str, Any]] = []
        self.matrix, self.heads = False, 1
        self.sources: dict[int, Sequence[str]] = {}
        self.dims = self.truth.d
        self.special: list[int] = []
        self.met: set[str] = set()  # templates of sentences
        self.told: dict[str, int] = {}
        self.kept: dict[str, Any] = {}

    # what is claimed

    def holds(self, so: bool, otherwise: str) -> None:
        """Hold a claim to the truth."""
        if not so:
            raise UntrueError(otherwise)

    def once(self, what: str) -> None:
        """Note that something was said; nothing is said twice."""
        self.told[what] = self.told.get(what, 0) + 1
        self.holds(self.told[what] == 1, f"{what} is told twice")

    def claim(self, what: str, so: bool, otherwise: str) -> None:
        """Something that is said once, and true."""
        self.once(what)
        self.holds(so, otherwise)

    def same(self, what: str, value: Any) -> None:
        """Something that must be the same in every table."""
        self.holds(self.kept.setdefault(what, value) == value, f"{what} differ: {self.kept[what]} and {value}")

    def says_all(self, *needed: str) -> None:
        """What a page must not keep silent, and nothing besides."""
        missing, more = set(needed) - set(self.told), set(self.told) - {*needed, *OPTIONAL}
        self.holds(not missing and not more, f"not said: {sorted(missing)}; said for no reason: {sorted(more)}")

    # names

    def is_own(self, name: str, at: str | None = None) -> None:
        """The item itself is named, and numbered."""
        self.holds(self.truth.i in self.names.who(name), f"the item is {self.tokens[self.truth.i]!r}")
        self.holds(at is None or int(at) == self.truth.i, f"its number is {self.truth.i}")

    def is_mask(self, name: str) -> None:
        self.holds(name == self.mask_name, f"the mask is {self.mask_name}")

    def lists(self, said: str, expected: list[str], *, unique: bool = True) -> None:
        """A list of names, each once, four at most and how many more."""
        words = list(dict.fromkeys(expected)) if unique else expected
        if len(words) > 4:
            words = [*words[:4], f"{len(words) - 4} more"]
        text = words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
        self.holds(self.names.unveiled(said) == text, f"the list should be {text}")

    def one_of(self, item: str, fits: Callable[[int], None]) -> None:
        """Something that is true of an item: the only one of its name, or of this number."""
        name, at = re.fullmatch(r"“(.*)”(?: \(item (\d+)\))?", item, re.DOTALL).groups()
        called = self.names.who(name)
        self.holds(bool(called), f"no item is called {name}")
        self.holds(bool(at) == (len(called) > 1), f"{len(called)} items are called {name}")
        self.holds(at is None or int(at) in called, f"item {at} has another name")
        fits(int(at) if at else called[0])

    # numbers

    def dot(self, j: int) -> Range:
        """A dot product as it is printed: 0 at right angles."""
        return exact(0.0) if j in self.json["at_right_angles"] else self.truth.score(j, 0)

    @property
    def shift(self) -> float:
        """What was subtracted from every score, as JSON has it."""
        return float(self.json["shift"])

    @cached_property
    def exponential_ends(self) -> Ends:
        return self.truth.exponentials(self.shift)

    def exponential(self, j: int) -> Range:
        low, high = self.exponential_ends
        return Range(float(low[j]), float(high[j]))

    @cached_property
    def sum(self) -> Range:
        """The sum of the exponentials."""
        return total(self.exponential_ends, self.truth.items)

    @cached_property
    def all_rows(self) -> list[Truth]:
        return [Truth(self.truth.x, i, self.mask, self.truth.rules) for i in range(self.truth.n)]

    def others(self, rows: list[tuple[int, Any]]) -> list[int]:
        """The seen items without a row."""
        return sorted(set(self.truth.items) - {j for j, _ in rows})

    def middle(self, j: int) -> float:
        """A weight, without the room for rounding."""
        weight = self.json["weights"][j]
        return programs.number(weight)

    def equation(self, left: Range, right: str, what: str) -> None:
        """Both sides of an equation, as far as their printed digits go."""
        self.holds(left.meets(figure(right)), f"{what} is {left.lo} to {left.hi}, not {right}")

    def rule_here(self) -> int:
        """Which rule the page is at, by its heading."""
        return self.kept["rule"]
