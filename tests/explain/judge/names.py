"""How items, counts and lists are written: what a page must say of them, by rules written once more."""

import re
from collections.abc import Sequence

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
MADE = "≈"


def label(name: str) -> str:
    """A name with nothing in it that cannot be printed: escapes for control characters, ␣ for blanks alone."""
    if not name.strip(" "):
        return "␣" * len(name) or "(empty)"
    alone = not name.strip("\u200c\u200d")  # joiners belong to what they join
    kept = "" if alone else "\u200c\u200d"
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in name)


def things(n: int, noun: str) -> str:
    """So many of something."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def sub(letter: str, index: int) -> str:
    """A letter with an index."""
    return letter + str(index).translate(SUBSCRIPTS)


def listed(words: Sequence[str]) -> str:
    """Four words at most, then how many more."""
    if len(words) > 4:
        words = [*words[:4], f"{len(words) - 4} more"]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


class Names:
    """The items' names on a page; `made` are the items whose vector is not that of their very own word."""

    def __init__(self, names: Sequence[str], made: Sequence[bool]) -> None:
        self.labels = [label(name) for name in names]
        self.made = list(made)
        odd = {one for one in self.labels if re.search("[“”]", one)}
        self.odd = sorted(odd, key=len, reverse=True)

    def marked(self, j: int) -> str:
        """An item in a title or a triangle."""
        return (MADE if self.made[j] else "") + self.labels[j]

    def quoted(self, items: Sequence[int]) -> str:
        """Items in a sentence, each name once."""
        return listed(list(dict.fromkeys(f"“{self.labels[j]}”" for j in items)))

    def one(self, items: Sequence[int]) -> bool:
        """Whether a sentence has one name for all of them."""
        return len({self.labels[j] for j in items}) == 1

    def veiled(self, text: str) -> str:
        """A paragraph in which no name has quotes of its own."""
        for at, odd in enumerate(self.odd):
            text = text.replace(f"“{odd}”", f"“\ue000{at}\ue001”")
        return text

    def unveiled(self, text: str) -> str:
        """A part of such a paragraph as it stood."""
        return re.sub("\ue000(\\d+)\ue001", lambda found: self.odd[int(found[1])], text)

    def who(self, name: str) -> list[int]:
        """The items that a name in a sentence may mean."""
        return [j for j, own in enumerate(self.labels) if own == self.unveiled(name)]
