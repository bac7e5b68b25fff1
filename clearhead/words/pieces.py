"""What an unknown word is made of: a known stem with endings, two known words, or just its letters.

Decides spelling only; `vectors` decides what a piece is worth. A piece is a guess at the meaning, so whoever uses one
says so.
"""

import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

_SUFFIXES = """
    s es ed d ing er ers or ly ness less ful ment ments able ible ation ations ion ions ity ies ied ier iest est y al
    ally ic ical ism ist ists ish ize izes ized izing ise ised ises ising ive ous ously like ship hood dom wise ward
    fy 's en age ery ess let ling
""".split()  # noqa: SIM905
_PREFIXES = """
    un re in im dis non over under pre anti mis inter super sub out multi micro cyber hyper de co semi ultra tele bio
    auto post fore self mega mini counter
""".split()  # noqa: SIM905
_LEAST = 3  # letters of a piece
_SHORT = 3  # pieces up to this long, and those before an ending up to this long, must be usual words
_USUAL = 8000  # first words of the vocabulary


def stem(word: str, known: Mapping[str, int]) -> str | None:
    """The known word that most of this one is, before a suffix or behind a prefix.

    `known` tells how usual each word of the vocabulary is: its place in it.

    >>> stem("laptoplike", {"lap": 0, "laptop": 1}), stem("stoniest", {"stone": 0}), stem("waterward", {"watery": 0})
    ('laptop', 'stone', 'watery')
    """
    found = [(len(cut), root) for cut, root in _roots(word) if _fits(root, known)]
    return max(found, key=lambda pair: pair[0], default=(0, None))[1]


def compound(word: str, known: Mapping[str, int]) -> tuple[str, str] | None:
    """The two known words that this one joins, cut as near to its middle as can be; the second may have an ending.

    >>> compound("doomscrolling", {"doom": 0, "scroll": 1}), compound("decoction", {"dec": 9000, "oct": 9001})
    (('doom', 'scroll'), None)
    """
    cuts = sorted(range(_LEAST, len(word) - _LEAST + 1), key=lambda cut: -min(cut, len(word) - cut))
    halves = [(word[:cut], word[cut:]) for cut in cuts if _fits(word[:cut], known)]
    for first, second in halves:
        if _fits(second, known):
            return first, second
    for first, second in halves:
        root = stem(second, known)
        if root and second.startswith(root) and len(root) > _SHORT:
            return first, root
    return None


def letters(word: str, buckets: int) -> npt.NDArray[np.intp]:
    """In which of the buckets the word's runs of 3, 4 and 5 letters fall, its beginning and end marked by < and >.

    >>> letters("cat", 8192).shape  # <ca cat at> <cat cat>
    (5,)
    """
    return np.array([zlib.crc32(run.encode()) % buckets for run in _runs(f"<{word}>")], np.intp)


def _fits(piece: str, known: Mapping[str, int]) -> bool:
    """Whether a piece says something: "oct" and "dec" of "decoction" do not."""
    return piece in known and (len(piece) > _SHORT or known[piece] < _USUAL)


def _roots(word: str) -> Iterator[tuple[str, str]]:
    """What may be left of a word without a prefix, a suffix or both: the letters left, and how they are spelled."""
    yield from _before_suffix(word)
    for prefix in _PREFIXES:
        cut = word.removeprefix(prefix)
        if cut != word and len(cut) > _LEAST:
            yield cut, cut
            yield from _before_suffix(cut)


def _before_suffix(word: str) -> Iterator[tuple[str, str]]:
    for suffix in _SUFFIXES:
        cut = word.removesuffix(suffix)
        if cut == word or len(cut) < _LEAST + (len(suffix) < _SHORT):  # "nord" does not come from "nor"
            continue
        yield from ((cut, cut), (cut, cut + "e"), (cut, cut + "y"))
        if cut[-1] == cut[-2]:
            yield cut, cut[:-1]  # stopp-ing
        if cut.endswith("i"):
            yield cut, cut[:-1] + "y"  # happi-ness


def _runs(marked: str) -> list[str]:
    return [marked[at : at + n] for n in (3, 4, 5) for at in range(len(marked) - n + 1) if n < len(marked)] or [marked]
