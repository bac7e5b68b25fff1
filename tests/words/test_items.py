"""A text's items, and that no visible character of it is dropped without a word."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.words.tokens import split


@pytest.mark.parametrize(
    ("text", "tokens", "left_out"),
    [
        ("The KING’s ship!", "the king's ship", "!"),
        ("don't 'quote' sailors' rest", "don't quote sailors rest", "'"),
        ("it´s o`clock", "it's o'clock", ""),
        ("whale-ship—deck_house…sea", "whale ship deck house sea", "-—_."),
        ("1,820.5 men; 3 in 1944.", "1,820.5 men 3 in 1944", ";."),
        ("C++ costs 50% of $100", "c costs 50 of 100", "+%$"),
        ("Cafe\u0301 ﬁsh Ａ", "café fish a", ""),
        ("नमस्ते море 我爱你", "नमस्ते море 我爱你", ""),
        ("क्\u200dष", "क्\u200dष", ""),
        ("co\u00adop\ufeff", "coop", ""),
        ("the 😀 river", "the 😀 river", ""),
        ("👍🏽👩‍🚀 🇩🇪🇫🇷 1️⃣ ❤️", "👍🏽 👩‍🚀 🇩🇪 🇫🇷 1️⃣ ❤️", ""),
        ("25 °C ©", "25 c", "°©"),
        ("river\n\tbank", "river bank", ""),
        ("a\x00b\x1b[0m", "a b 0m", "["),
        ("\ud800 river", "river", "�"),
        ("' ... — ' !?", "", "'.—!?"),
        ("", "", ""),
    ],
)
def test_items_and_what_is_left_out(text: str, tokens: str, left_out: str) -> None:
    items = split(text)
    assert list(items.tokens) == tokens.split()
    assert list(items.left_out) == list(left_out)


@given(st.text(st.characters(), max_size=40))
def test_every_visible_character_is_in_an_item_or_named_as_left_out(text: str) -> None:
    items = split(text)
    kept = "".join(items.tokens) + "".join(items.left_out)
    assert all(items.tokens)
    for c in unicodedata.normalize("NFKC", text).lower():
        if (
            unicodedata.category(c)[0] in "LNPS"
            and c not in "‘’ʼ`´"
            and c not in "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
        ):
            assert c in kept, (c, items)


@given(st.text(st.characters(), max_size=40))
def test_splitting_items_again_changes_nothing(text: str) -> None:
    tokens = split(text).tokens
    assert split(" ".join(tokens)).tokens == tokens
