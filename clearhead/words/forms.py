"""Which vocabulary words an unknown word may honestly be read as: its inflections, or the two words it joins.

Decides spelling only, from general to particular, and knows no vocabulary; vectors.py takes the first reading whose
words it has. English inflection alone: endings that change a word's class (-er, -ly, -ness) would change its meaning.
"""

import unicodedata
from collections.abc import Iterator

# (what the word ends in, what stands there in a related word); a stem keeps three letters at least
_ENDINGS = (
    ("'s", ""),
    ("s'", "s"),
    ("ies", "y"),
    ("ves", "f"),
    ("ves", "fe"),
    ("es", "e"),
    ("es", ""),
    ("s", ""),
    ("ied", "y"),
    ("ed", "e"),
    ("ed", ""),
    ("ing", "e"),
    ("ing", ""),
    ("iest", "y"),
    ("est", "e"),
    ("est", ""),
    ("ier", "y"),
)
_STEM = 3


def unaccented(word: str) -> str:
    """The word without its accents.

    >>> unaccented("café")
    'cafe'
    """
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def inflections(word: str) -> Iterator[str]:
    """Words of the same lemma, as English spelling would have them; the plain form first, then other endings of it.

    >>> list(inflections("flooded"))[:2]
    ['floode', 'flood']
    """
    stems = [word]
    for ending, rest in _ENDINGS:
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < _STEM:
            continue
        stems.append(stem + rest)
        if ending in ("ed", "ing", "est") and not rest and stem[-1] == stem[-2]:
            stems.append(stem[:-1])  # stopped → stop
    yield from stems[1:]
    for stem in stems:
        if len(stem) < _STEM:
            continue
        base = stem.removesuffix("e")
        yield from (stem + "s", stem + "es", base + "ed", base + "ing")
        yield from (stem + stem[-1] + "ed", stem + stem[-1] + "ing")
        if stem[-1] == "y":
            yield from (stem[:-1] + "ies", stem[:-1] + "ied")


def halves(word: str) -> Iterator[tuple[str, str]]:
    """The ways to part a word in two, the most even first; no part under three letters, not both of three.

    >>> list(halves("riverbank"))[:2]
    [('rive', 'rbank'), ('river', 'bank')]
    """
    if len(word) <= 2 * _STEM:
        return
    cuts = range(_STEM, len(word) - _STEM + 1)
    for cut in sorted(cuts, key=lambda cut: abs(2 * cut - len(word))):
        yield word[:cut], word[cut:]
