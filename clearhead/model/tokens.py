"""The model's tokenizer: byte-pair encoding, which can write any text with 2048 tokens.

Responsible for cutting a text into tokens. Token 0 is `<s>`, which begins every text; 1 to 256 are the bytes; each
later token joins two earlier ones, in the order in which training merged the most frequent pair (Sennrich et al. 2016).
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from clearhead.errors import InputError

START, FIRST_BYTE, FIRST_PAIR = 0, 1, 257
PIECE_PATTERN = re.compile(  # pairs merge only within a piece; bounded pieces keep the work linear in the text's length
    r"'(?:s|t|re|ve|m|ll|d)\b"
    r"| ?[^\W\d_]{1,24}"  # a word with the blank before it
    r"| ?\d"
    r"| ?(?:[^\w\s]|_){1,24}"
    r"|\s{1,24}(?!\S)|\s"
)
PIECE_CACHE_SIZE = 1 << 14


def split_pieces(text: str) -> Iterator[str]:
    """Split a text into words, digits, punctuation and blanks; joined, they are the text again.

    >>> list(split_pieces("She didn't see 12 whales."))
    ['She', ' didn', "'t", ' see', ' 1', '2', ' whales', '.']
    """
    return (match[0] for match in PIECE_PATTERN.finditer(text))


class Tokenizer:
    """Encodes texts as tokens and decodes them, given the pairs that tokens 257, 258 … merge.

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
        self.encode_piece = functools.lru_cache(PIECE_CACHE_SIZE)(self._encode_piece)

    def __len__(self) -> int:
        return len(self.bytes)

    def encode(self, text: str) -> list[int]:
        """`<s>` and the text's tokens. Raises InputError for a lone surrogate, which UTF-8 cannot encode."""
        tokens = [START]
        for piece in split_pieces(text):
            tokens += self.encode_piece(piece)
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without `<s>`; bytes that are not valid UTF-8 become �."""
        return b"".join(self.bytes[token] for token in tokens).decode("utf-8", "replace")

    def names(self, tokens: Iterable[int]) -> list[str]:
        """Each token as text, with bytes that are not valid UTF-8 escaped.

        >>> Tokenizer([]).names([0, ord("a") + 1, 255])
        ['<s>', 'a', '\\\\xfe']
        """
        return [self.bytes[token].decode("utf-8", "backslashreplace") or "<s>" for token in tokens]

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        """Merge every occurrence of the pair that training merged first, until no known pair is left."""
        try:
            tokens = [byte + FIRST_BYTE for byte in piece.encode("utf-8")]
        except UnicodeEncodeError as error:
            raise InputError(
                f"{piece!r} contains {piece[error.start]!r}, a lone surrogate: give text that UTF-8 can encode."
            ) from None
        while pair := min(itertools.pairwise(tokens), key=self._order, default=None):
            new = self.joined.get(pair)
            if new is None:
                break
            tokens = _merge_pair(tokens, pair, new)
        return tuple(tokens)

    def _order(self, pair: tuple[int, int]) -> int:
        return self.joined.get(pair, len(self.bytes))


def _merge_pair(tokens: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Replace each occurrence of the pair, from the left, by the new token."""
    out, i = list[int](), 0
    while i < len(tokens):
        is_pair = tuple(tokens[i : i + 2]) == pair
        out.append(new if is_pair else tokens[i])
        i += 2 if is_pair else 1
    return out
