"""Other forms of a word: without accents, in other spellings, in other inflections.

Responsible for spelling only, without a vocabulary; irregular English inflections are in irregular.txt. Not for endings
that make a different word (-er, -ly, -less): `pieces` removes those, and its result is a guess at the meaning.
"""

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from importlib import resources

_ENDINGS = (  # (an inflected ending, the ending of the plain form)
    ("'s", ""),
    ("s'", "s"),
    ("ies", "y"),
    ("es", ""),
    ("s", ""),
    ("ves", "f"),
    ("ves", "fe"),
    ("ied", "y"),
    ("ed", "e"),
    ("ed", ""),
    ("ing", "e"),
    ("ing", ""),
    ("iest", "y"),
)
_SHORTENED = ("'ve", "'re", "'ll", "'d", "'m", "n't", "'s")  # words contracted with the one before
_APOSTROPHES = (("nt", "n't"), ("ve", "'ve"), ("re", "'re"), ("ll", "'ll"), ("m", "'m"), ("d", "'d"), ("s", "'s"))
_TAKES_ES = re.compile(r".*(s|x|z|ch|sh|o)")  # plural in -es: boxes
_DOUBLES = re.compile(r"(.*[^aeiou])?[aeiou][^aeiouwxy]")  # may double its last letter: stop, stopped
_MUST_DOUBLE = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")  # one syllable, must double: "staring" is not from "star"


def unaccented(word: str) -> str:
    """The word without its accents.

    >>> unaccented("café")
    'cafe'
    """
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def spellings(word: str) -> Iterator[str]:
    """Other spellings of the same word: without accents, and with an apostrophe that the writer left out.

    >>> list(spellings("café")), "don't" in spellings("dont"), "we're" in spellings("were")
    (['cafe'], True, True)
    """
    plain = unaccented(word)
    if plain != word:
        yield plain
    for ending, spelled in _APOSTROPHES:
        if plain.endswith(ending) and plain != ending:
            yield plain.removesuffix(ending) + spelled


def inflections(word: str) -> Iterator[str]:
    """Candidates for other inflections of the same word: plain forms first, then these with other endings.

    >>> list(inflections("stopped"))[:4]
    ['stoppe', 'stopp', 'stop', 'stoppeds']
    """
    yield from (word.removesuffix(ending) for ending in _SHORTENED if word.endswith(ending) and word != ending)
    plain = [form for form in _plain_forms(word) if len(form) >= 3]
    yield from plain
    for form in (word, *plain):
        yield from _irregular()[1].get(form, ())
        yield from _other_endings(form)


def family(word: str) -> frozenset[str]:
    """The word and every plain form it may be an inflection of; inflections of one word share one of these.

    >>> sorted(family("banking") & family("banks")), sorted(family("ate") & family("eating"))
    (['bank'], ['eat'])
    """
    return frozenset([word, *(form for form in _plain_forms(word) if len(form) >= 3)])


def regular_stems(word: str) -> list[str]:
    """The plain forms that the regular rules give, without irregular.txt.

    >>> regular_stems("stopped"), regular_stems("ate")
    (['stoppe', 'stopp', 'stop'], [])
    """
    return [form for form in _regular_stems(word) if len(form) >= 3]


@functools.cache
def _irregular() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Irregular forms to plain forms, “ate” to “eat”, and plain forms to irregular ones."""
    plain, inflected = defaultdict(list), defaultdict(list)
    for line in resources.files(__package__).joinpath("irregular.txt").read_text("utf-8").splitlines():
        form, base = line.split()
        plain[form].append(base)
        inflected[base].append(form)
    return dict(plain), dict(inflected)


def _plain_forms(word: str) -> Iterator[str]:
    yield from _irregular()[0].get(word, ())
    yield from _regular_stems(word)


def _regular_stems(word: str) -> Iterator[str]:
    for ending, rest in _ENDINGS:
        stem = word.removesuffix(ending)
        if stem in ("", word) or (ending == "es" and not _TAKES_ES.fullmatch(stem)):
            continue
        if ending in ("ed", "ing") and not rest:
            if not _MUST_DOUBLE.fullmatch(stem):
                yield stem
            if stem[-1:] == stem[-2:-1] and _DOUBLES.fullmatch(stem[:-1]):
                yield stem[:-1]
        else:
            yield stem + rest


def _other_endings(form: str) -> Iterator[str]:
    if len(form) >= 4:  # shorter ones match unrelated words: "los" is not a form of "loses"
        yield form + ("es" if _TAKES_ES.fullmatch(form) else "s")
        if form.endswith("y"):
            yield form[:-1] + "ies"
    if len(form) >= 5:  # likewise "wick" is not a form of "wicked"
        yield from (form.removesuffix("e") + "ed", form.removesuffix("e") + "ing")
        if form.endswith("y"):
            yield form[:-1] + "ied"
