"""The pairs of tokens that are joined into one, learned from the texts' pieces."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from clearhead.model.tokens import FIRST_BYTE, FIRST_PAIR, split_pieces

SIZE = 2048  # of the vocabulary: <s>, the bytes and 1791 pairs
BETWEEN = "\0"  # pieces, which holds no text
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that the library writes as Latin-1


def learn(texts: Iterable[str]) -> list[tuple[int, int]]:
    """The pairs in the order of their joining, as numbers of tokens."""
    split = pre_tokenizers.Split(BETWEEN, "removed")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    trainer = trainers.BpeTrainer(vocab_size=SIZE - 1, initial_alphabet=as_bytes.alphabet(), show_progress=False)
    learned.train_from_iterator((BETWEEN.join(split_pieces(text)) for text in texts), trainer)
    number = {sign: byte + FIRST_BYTE for byte, sign in enumerate(_signs())}
    merges = []
    for new, (a, b) in enumerate(json.loads(learned.to_str())["model"]["merges"], FIRST_PAIR):
        merges.append((number[a], number[b]))
        number[a + b] = new
    return merges


def _signs() -> list[str]:
    """What the library writes for each byte: itself, or a letter beyond Latin-1 where it is not printable."""
    others = iter(range(256, 512))
    return [chr(byte if byte in PRINTABLE else next(others)) for byte in range(256)]
