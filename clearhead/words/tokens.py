"""Splits a text into the items of attention: words, numbers and emoji.

Responsible for where an item begins and ends. Not for its vector, which is in `vectors`. Every visible character of
the text either belongs to an item or is listed as left out.
"""

import re
import unicodedata
from typing import NamedTuple

_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼ`´", "'"))
_FIRST_PICTURE = 0x2190  # from here on, a symbol of Unicode's category So is a picture; © and ° come before

# A text is matched through a shadow in which each character is replaced by its class: L letter, D digit, ' apostrophe,
# . point or comma, E picture, V variation selector or skin tone, J joiner, R half a flag, - other, space invisible.
_ITEM = re.compile(
    r"D[LDV]*(?:\.D[LDV]*)*"  # 7, 1,820.5, 20th
    r"|L(?:J?[LDV])*(?:'[LD](?:J?[LDV])*)*"  # river, don't, covid19
    r"|RR?"  # a flag
    r"|E[VL]*(?:JE[VL]*)*"  # ❤, and several pictures joined into one
)


class Items(NamedTuple):
    """The items of a text in order, in lower case, and the visible characters outside all items, each once."""

    tokens: tuple[str, ...]
    left_out: tuple[str, ...]


def split(text: str) -> Items:
    """Split a text into items. Hyphens separate words, inner apostrophes stay, numbers keep their points and commas.

    >>> split("The whale-ship didn’t sink, in 1,820 fathoms!")
    Items(tokens=('the', 'whale', 'ship', "didn't", 'sink', 'in', '1,820', 'fathoms'), left_out=('-', ',', '!'))
    >>> split("I ❤️ море 👩‍🚀").tokens
    ('i', '❤️', 'море', '👩‍🚀')
    """
    text = _normalized(text)
    shadow = "".join(map(_character_class, text))
    tokens: list[str] = []
    rest: list[str] = []
    end = 0
    for match in _ITEM.finditer(shadow):
        tokens.append(text[match.start() : match.end()])
        rest += text[end : match.start()]
        end = match.end()
    rest += text[end:]
    return Items(tuple(tokens), tuple(dict.fromkeys(c for c in rest if _character_class(c) not in " VJ")))


def is_latin(token: str) -> bool:
    """Whether a token contains a Latin letter a to z, accents aside.

    >>> is_latin("naïve"), is_latin("море"), is_latin("❤")
    (True, False, False)
    """
    return any("a" <= c <= "z" for c in unicodedata.normalize("NFD", token))


def is_number(token: str) -> bool:
    """Whether a token begins with a digit of any script.

    >>> is_number("20th"), is_number("٣"), is_number("covid19")
    (True, True, False)
    """
    return token[:1].isdecimal()


def _normalized(text: str) -> str:
    """The text in lower case and normal form NFKC, without soft hyphens and other format characters."""
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).lower().replace("\u200b", " ")
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)  # lone surrogates, which cannot be printed
    return "".join(c for c in text if unicodedata.category(c) != "Cf" or c in "\u200d\u200c")


def _character_class(c: str) -> str:
    category = unicodedata.category(c)
    if category == "Nd":
        return "D"
    if c in "\ufe0f\ufe0e" or "\U0001f3fb" <= c <= "\U0001f3ff":
        return "V"
    if category[0] in "LMN" or c == "\u200c":
        return "L"
    if "\U0001f1e6" <= c <= "\U0001f1ff":
        return "R"
    if category == "So" and ord(c) >= _FIRST_PICTURE and c != "\ufffd":
        return "E"
    if c == "\u200d":
        return "J"
    if category[0] in "ZC":
        return " "
    return {"'": "'", ".": ".", ",": "."}.get(c, "-")
