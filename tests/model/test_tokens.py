"""Byte pairs: any text comes back, and the tokens are those that the library that learned them would cut."""

import json
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_training import pairs
from model_training.gates import HELD_OUT
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from clearhead.errors import InputError
from clearhead.model import Tokenizer, load
from clearhead.model.tokens import FIRST_BYTE, FIRST_PAIR, START, split_pieces

TEXT = HELD_OUT.read_text("utf-8")
LIKELY = st.text(st.sampled_from(" \n\t'_-\"a.é½²1٣日ไ‍👩\u0301\x00<s>")) | st.sampled_from(
    ["<s>", " <s> a", "don't 'S"]
)


@given(st.text() | LIKELY)
def test_any_text_comes_back(text):
    tokenizer = load().tokenizer
    tokens = tokenizer.encode(text)
    assert "".join(split_pieces(text)) == text
    assert tokenizer.decode(tokens) == text
    assert tokens[0] == START
    assert START not in tokens[1:]  # a text that says "<s>" is a text
    assert all(0 < token < len(tokenizer) for token in tokens[1:])


def test_a_lone_surrogate_is_refused():
    with pytest.raises(InputError, match="lone surrogate"):
        load().tokenizer.encode("a \ud800 b")


def test_the_vocabulary_is_what_is_said():
    tokenizer = load().tokenizer
    assert len(tokenizer) == len(set(tokenizer.bytes)) == 2048
    assert [tokenizer.bytes[byte + FIRST_BYTE] for byte in range(256)] == [bytes([byte]) for byte in range(256)]


def test_tokens_are_the_librarys():
    tokenizer = load().tokenizer
    signs = pairs._signs()
    written = ["<s>", *signs] + ["".join(signs[byte] for byte in joined) for joined in tokenizer.bytes[FIRST_PAIR:]]
    merges = [(written[a], written[b]) for a, b in tokenizer.joined]
    library = Library(models.BPE({sign: i for i, sign in enumerate(written)}, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for piece in dict.fromkeys(split_pieces(TEXT)):
        assert list(tokenizer.encode_piece(piece)) == library.encode(piece).ids, piece


def test_pairs_are_learned_by_how_often_they_stand_together(monkeypatch):
    monkeypatch.setattr(pairs, "SIZE", FIRST_PAIR + 40)
    merges = pairs.learn([TEXT])
    assert merges == pairs.learn([TEXT])
    tokenizer = Tokenizer(merges[:-1])
    tokens = [tokenizer.encode_piece(piece) for piece in split_pieces(TEXT)]
    side_by_side = [pair for piece in tokens for pair in pairwise(piece)]
    found, counts = np.unique(np.array(side_by_side), axis=0, return_counts=True)
    last = counts[(found == merges[-1]).all(axis=1)]
    assert last == counts.max()  # the last pair is a most frequent one among the tokens of all the others


def test_a_long_word_takes_time_in_proportion():
    tokenizer = load().tokenizer
    text = "".join(np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), 200_000))
    began = time.process_time()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert time.process_time() - began < 20


def test_half_a_character_is_shown_as_such():
    tokenizer = load().tokenizer
    assert tokenizer.decode(tokenizer.encode("é")[:-1]) in ("", "�")
    assert json.dumps(tokenizer.names([START, 200]))
