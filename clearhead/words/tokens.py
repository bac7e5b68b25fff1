"""How a text becomes the items that attention looks at: words, numbers, emoji, and what is left out between them.

Decides where an item begins and ends; which vector stands for it is decided in `vectors`. Every visible character of
the text either belongs to an item or is listed as left out.
"""

import re
import unicodedata
from typing import NamedTuple

_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼ`´", "'"))
_PICTURES = 0x2190  # from here on, a symbol of Unicode's category So is a picture; © and ° stand before

# A text is matched through a shadow of itself, in which each character is replaced by its kind:
# L letter, D digit, ' apostrophe, . point or comma, E picture, V what may follow one, J joiner, R half a flag, - other,
# space what nobody sees.
_ITEM = re.compile(
    r"D[LDV]*(?:\.D[LDV]*)*"  # 7, 1,820.5, 20th
    r"|L(?:J?[LDV])*(?:'[LD](?:J?[LDV])*)*"  # river, don't, covid19
    r"|RR?"  # a flag
    r"|E[VL]*(?:JE[VL]*)*"  # ❤, and pictures joined to one
)


class Items(NamedTuple):
    """The items of a text in order, in lower case, and the visible characters that belong to none, each once."""

    tokens: tuple[str, ...]
    left_out: tuple[str, ...]


def split(text: str) -> Items:
    """A text's items. Hyphens part words, inner apostrophes stay; a number keeps its points and commas.

    >>> split("The whale-ship didn’t sink, in 1,820 fathoms!")
    Items(tokens=('the', 'whale', 'ship', "didn't", 'sink', 'in', '1,820', 'fathoms'), left_out=('-', ',', '!'))
    >>> split("I ❤️ море 👩‍🚀").tokens
    ('i', '❤️', 'море', '👩‍🚀')
    """
    text = _plain(text)
    shadow = "".join(map(_kind, text))
    tokens: list[str] = []
    rest: list[str] = []
    end = 0
    for found in _ITEM.finditer(shadow):
        tokens.append(text[found.start() : found.end()])
        rest += text[end : found.start()]
        end = found.end()
    rest += text[end:]
    return Items(tuple(tokens), tuple(dict.fromkeys(c for c in rest if _kind(c) not in " VJ")))


def is_latin(token: str) -> bool:
    """Whether the vocabulary's alphabet has a letter of this token.

    >>> is_latin("naïve"), is_latin("море"), is_latin("❤")
    (True, False, False)
    """
    return any("a" <= c <= "z" for c in unicodedata.normalize("NFD", token))


def is_number(token: str) -> bool:
    """Whether a token begins with a digit, of any script.

    >>> is_number("20th"), is_number("٣"), is_number("covid19")
    (True, True, False)
    """
    return token[:1].isdecimal()


def _plain(text: str) -> str:
    """The text in lower case and one spelling: compatible forms are one, and soft hyphens and their like are gone."""
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).lower().replace("\u200b", " ")
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)  # half a character, which nothing could print
    return "".join(c for c in text if unicodedata.category(c) != "Cf" or c in "\u200d\u200c")


def _kind(c: str) -> str:
    category = unicodedata.category(c)
    if category == "Nd":
        return "D"
    if c in "\ufe0f\ufe0e" or "\U0001f3fb" <= c <= "\U0001f3ff":
        return "V"
    if category[0] in "LMN" or c == "\u200c":
        return "L"
    if "\U0001f1e6" <= c <= "\U0001f1ff":
        return "R"
    if category == "So" and ord(c) >= _PICTURES and c != "\ufffd":
        return "E"
    if c == "\u200d":
        return "J"
    if category[0] in "ZC":
        return " "
    return {"'": "'", ".": ".", ",": "."}.get(c, "-")
