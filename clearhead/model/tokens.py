"""The model's tokens: byte pairs, so that any text can be written with 2048 of them.

Decides how a text is cut. Token 0 is `<s>`, which stands before every text; 1 to 256 are the bytes; each later one
joins two earlier ones, in the order in which training found them most often side by side (Sennrich et al. 2016).
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from clearhead.errors import InputError

START, FIRST_BYTE, FIRST_PAIR = 0, 1, 257
PIECE = re.compile(  # pairs are joined within a piece only; its bound keeps the work in proportion to the text's length
    r"'(?:s|t|re|ve|m|ll|d)\b"
    r"| ?[^\W\d_]{1,24}"  # a word with the blank before it
    r"| ?\d"
    r"| ?(?:[^\w\s]|_){1,24}"
    r"|\s{1,24}(?!\S)|\s"
)
MOST_KNOWN = 1 << 14  # pieces whose tokens are remembered


def pieces(text: str) -> Iterator[str]:
    """Words, digits, signs and blanks, which joined are the text again.

    >>> list(pieces("She didn't see 12 whales."))
    ['She', ' didn', "'t", ' see', ' 1', '2', ' whales', '.']
    """
    return (found[0] for found in PIECE.finditer(text))


class Tokenizer:
    """Cuts texts into tokens and joins them again, given the pairs that tokens 257, 258 … join.

    >>> tokenizer = Tokenizer([(ord("t") + 1, ord("h") + 1), (257, ord("e") + 1)])
    >>> tokenizer.encode("the moth")
    [0, 258, 33, 110, 112, 257]
    >>> tokenizer.decode([0, 258, 33, 110, 112, 257])
    'the moth'
    """

    def __init__(self, merges: Iterable[Sequence[int]]) -> None:
        self.bytes = [b"", *(bytes([byte]) for byte in range(256))]
        self.joined: dict[tuple[int, int], int] = {}
        for a, b in merges:
            self.joined[a, b] = len(self.bytes)
            self.bytes.append(self.bytes[a] + self.bytes[b])
        self.encode_piece = functools.lru_cache(MOST_KNOWN)(self._encode_piece)

    def __len__(self) -> int:
        return len(self.bytes)

    def encode(self, text: str) -> list[int]:
        """`<s>` and the text's tokens. Raises InputError for half a surrogate pair, which no text holds."""
        tokens = [START]
        for piece in pieces(text):
            tokens += self.encode_piece(piece)
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without `<s>`; bytes that make no character become �."""
        return b"".join(self.bytes[token] for token in tokens).decode("utf-8", "replace")

    def names(self, tokens: Iterable[int]) -> list[str]:
        """Each token as a reader sees it.

        >>> Tokenizer([]).names([0, ord("a") + 1, 255])
        ['<s>', 'a', '\\\\xfe']
        """
        return [self.bytes[token].decode("utf-8", "backslashreplace") or "<s>" for token in tokens]

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        """Join the pair that training joined first, wherever it stands, until no pair is known."""
        try:
            tokens = [byte + FIRST_BYTE for byte in piece.encode("utf-8")]
        except UnicodeEncodeError as error:
            raise InputError(
                f"{piece!r} holds {piece[error.start]!r}, half a surrogate pair: give text that UTF-8 can write."
            ) from None
        while pair := min(itertools.pairwise(tokens), key=self._order, default=None):
            new = self.joined.get(pair)
            if new is None:
                break
            tokens = _replaced(tokens, pair, new)
        return tuple(tokens)

    def _order(self, pair: tuple[int, int]) -> int:
        return self.joined.get(pair, len(self.bytes))


def _replaced(tokens: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The tokens with each occurrence of the pair, from the left, as one."""
    out, i = list[int](), 0
    while i < len(tokens):
        found = tuple(tokens[i : i + 2]) == pair
        out.append(new if found else tokens[i])
        i += 2 if found else 1
    return out
