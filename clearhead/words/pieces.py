"""The pieces of an unknown word: a known stem with affixes, two known words, or sequences of letters.

Responsible for spelling only; `vectors` weighs the pieces. Pieces are a guess at the meaning, so a caller that uses
them must say so.
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
_SHORTEST = 3  # letters of a piece
_SHORT = 3  # a piece of at most so many letters must be among the most usual words
_MOST_USUAL = 8000  # first words of the vocabulary


def stem(word: str, known: Mapping[str, int]) -> str | None:
    """The known word that is the longest part of this one, without a prefix or a suffix or both.

    `known` maps each word of the vocabulary to its rank, the most usual first.

    >>> stem("laptoplike", {"lap": 0, "laptop": 1}), stem("stoniest", {"stone": 0}), stem("waterward", {"watery": 0})
    ('laptop', 'stone', 'watery')
    """
    roots = [(len(cut), root) for cut, root in _possible_roots(word) if _is_meaningful(root, known)]
    return max(roots, key=lambda pair: pair[0], default=(0, None))[1]


def compound(word: str, known: Mapping[str, int]) -> tuple[str, str] | None:
    """The two known words that this one joins, cut as near to its middle as possible; the second may have an ending.

    >>> compound("doomscrolling", {"doom": 0, "scroll": 1}), compound("decoction", {"dec": 9000, "oct": 9001})
    (('doom', 'scroll'), None)
    """
    cuts = sorted(range(_SHORTEST, len(word) - _SHORTEST + 1), key=lambda cut: -min(cut, len(word) - cut))
    halves = [(word[:cut], word[cut:]) for cut in cuts if _is_meaningful(word[:cut], known)]
    for first, second in halves:
        if _is_meaningful(second, known):
            return first, second
    for first, second in halves:
        root = stem(second, known)
        if root and second.startswith(root) and len(root) > _SHORT:
            return first, root
    return None


def letter_buckets(word: str, buckets: int) -> npt.NDArray[np.intp]:
    """The buckets that the word's runs of 3, 4 and 5 letters hash to, its beginning and end marked by < and >.

    >>> letter_buckets("cat", 8192).shape  # <ca cat at> <cat cat>
    (5,)
    """
    return np.array([zlib.crc32(run.encode()) % buckets for run in _runs(f"<{word}>")], np.intp)


def _is_meaningful(piece: str, known: Mapping[str, int]) -> bool:
    """Whether a piece carries meaning: "oct" and "dec" of "decoction" do not."""
    return piece in known and (len(piece) > _SHORT or known[piece] < _MOST_USUAL)


def _possible_roots(word: str) -> Iterator[tuple[str, str]]:
    """The word without a prefix, a suffix or both: the letters left, and a spelling they may have as a word."""
    yield from _before_suffix(word)
    for prefix in _PREFIXES:
        cut = word.removeprefix(prefix)
        if cut != word and len(cut) > _SHORTEST:
            yield cut, cut
            yield from _before_suffix(cut)


def _before_suffix(word: str) -> Iterator[tuple[str, str]]:
    for suffix in _SUFFIXES:
        cut = word.removesuffix(suffix)
        if cut == word or len(cut) < _SHORTEST + (len(suffix) < _SHORT):  # "nord" is not derived from "nor"
            continue
        yield from ((cut, cut), (cut, cut + "e"), (cut, cut + "y"))
        if cut[-1] == cut[-2]:
            yield cut, cut[:-1]  # stopp-ing
        if cut.endswith("i"):
            yield cut, cut[:-1] + "y"  # happi-ness


def _runs(marked: str) -> list[str]:
    return [marked[at : at + n] for n in (3, 4, 5) for at in range(len(marked) - n + 1) if n < len(marked)] or [marked]
