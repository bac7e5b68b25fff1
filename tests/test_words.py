"""The shipped word vectors: small, sensible, fit for unscaled attention, and honest about words they lack."""

import pickle
from importlib import resources

import numpy as np
import pytest

from clearhead.definition import textbook
from clearhead.errors import ClearheadError, InputError, ShapeError
from clearhead.words import WordVectors, load

RIVER = "the river bank was wet because the river had flooded"


def near(word: str, count: int = 8) -> list[str]:
    return [other for other, _ in load().nearest(load().look_up(word).vector, count, exclude=[word])]


def weights(text: str) -> tuple[tuple[str, ...], np.ndarray]:
    sentence = load().embed(text)
    s = textbook.scores(sentence.x, sentence.x)
    seen = np.tri(len(sentence.x), dtype=bool)
    return sentence.tokens, textbook.softmax(s, seen)[-1]


def test_both_files_stay_within_one_megabyte() -> None:
    here = resources.files("clearhead.words")
    sizes = [len(here.joinpath(name).read_bytes()) for name in ("vocabulary.txt", "words.safetensors")]
    assert sum(sizes) <= 1_000_000


def test_vocabulary_and_vectors_agree() -> None:
    words = load()
    assert words.vectors.shape == (len(words.words), 64)
    assert words.vectors.dtype == np.float32
    assert len(set(words.words)) == len(words.words)
    assert np.isfinite(words.vectors).all()
    assert (np.linalg.norm(words.vectors, axis=1) > 0.1).all()
    assert words.words[0] == "the"


def test_loaded_once_and_read_only() -> None:
    assert load() is load()
    with pytest.raises(ValueError, match="read-only"):
        load().vectors[0, 0] = 1


def test_every_word_of_the_vocabulary_is_known_as_itself() -> None:
    words = load()
    for i, word in enumerate(words.words):
        if word != "#":
            assert words.tokens(word) == [word]
        found = words.look_up(word)
        assert (found.how, found.source, found.note) == ("known", word, None)
        assert np.array_equal(found.vector, words.vectors[i])


@pytest.mark.parametrize(
    ("word", "related"),
    [
        ("river", "lake"),
        ("flood", "waters"),
        ("bank", "deposit"),
        ("bread", "wine"),
        ("mother", "daughter"),
        ("whale", "leviathan"),
        ("tax", "income"),
        ("school", "teacher"),
        ("nuclear", "weapons"),
        ("cold", "wind"),
    ],
)
def test_related_words_are_neighbours(word: str, related: str) -> None:
    assert related in near(word)


def test_nearest_sorts_by_cosine_whatever_the_length() -> None:
    words = load()
    vector = words.look_up("sea").vector
    found = words.nearest(vector, 50)
    assert found[0][0] == "sea"
    assert found[0][1] == pytest.approx(1)
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)
    assert [word for word, _ in words.nearest(1e-3 * vector, 50)] == [word for word, _ in found]
    assert "sea" not in dict(words.nearest(vector, 50, exclude={"sea"}))
    assert words.nearest(vector, 0) == []


@pytest.mark.parametrize(("vector", "error"), [(np.zeros(64), InputError), (np.ones(63), ShapeError)])
def test_nearest_refuses_what_has_no_direction_or_another_dim(vector: np.ndarray, error: type[Exception]) -> None:
    with pytest.raises(error):
        load().nearest(vector)
    with pytest.raises(InputError):
        load().nearest(np.full(64, np.nan))


def test_unscaled_attention_looks_at_related_words() -> None:
    tokens, a = weights(RIVER)
    share = dict(zip(tokens, a, strict=True))
    assert share["river"] > 5 * share["the"]
    assert share["river"] > 5 * share["because"]
    assert share["wet"] > 3 * share["the"]
    assert 0.3 < share["flooded"] < 0.7  # neither swallows everything nor drowns


def test_unrelated_words_score_near_zero_and_keep_their_share() -> None:
    sentence = load().embed(RIVER)
    score = dict(zip(sentence.tokens, sentence.x @ sentence.x[-1], strict=True))
    assert abs(score["the"]) < 0.1
    assert score["river"] > 1.5
    assert 2 < score["flooded"] < 4


def test_the_bank_by_the_river_moves_towards_water() -> None:
    words = load()
    x = words.embed("the river flooded the bank").x
    y = textbook.self_attention(x)[-1]
    river = words.look_up("river").vector

    def cosine(vector: np.ndarray) -> float:
        return float(vector @ river / np.linalg.norm(vector) / np.linalg.norm(river))

    assert cosine(y) > cosine(x[-1]) + 0.05


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The KING’s ship!", ["the", "king's", "ship"]),
        ("don't 'quote' sailors' rest", ["don't", "quote", "sailors", "rest"]),
        ("whale-ship—deck_house…sea", ["whale", "ship", "deck", "house", "sea"]),
        ("1,820.5 men; 3 in 1944.", ["18205", "men", "3", "in", "1944"]),
        ("Cafe\u0301 ﬁsh Ａ", ["café", "fish", "a"]),
        ("नमस्ते море", ["नमस्ते", "море"]),
        ("river\n\tbank", ["river", "bank"]),
        ("' ... — ' !?", []),
        ("", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert WordVectors.tokens(text) == tokens


@pytest.mark.parametrize(
    ("token", "source"),
    [
        ("flooded", "flood"),
        ("river's", "river"),
        ("rivers'", "rivers"),
        ("swims", "swim"),
        ("boxes", "box"),
        ("saves", "save"),
        ("monopolies", "monopoly"),
        ("wiped", "wipe"),
        ("hopping", None),  # not from "hope"
        ("staring", None),  # not from "star"
        ("los", None),  # not from "loses"
        ("moss", None),  # not from "moses"
        ("wick", None),  # not from "wicked"
        ("hardship", None),
        ("butterfly", None),
        ("lung", "lungs"),
        ("acquaint", "acquainted"),
    ],
)
def test_another_inflection_stands_in_and_only_that(token: str, source: str | None) -> None:
    words = load()
    assert token not in words.words
    if source is None:
        with pytest.raises(InputError):
            words.look_up(token)
    else:
        found = words.look_up(token)
        assert (found.how, found.source) == ("inflection", source)
        assert np.array_equal(found.vector, words.look_up(source).vector)
        assert f"“{source}”" in str(found.note)


def test_accents_and_numbers_are_read_with_a_note() -> None:
    words = load()
    assert words.look_up("rivér").source == "river"
    assert words.look_up("1944").source == words.look_up("20th").source == "#"
    assert words.embed("rivér 1944 rivér flooded sea").notes == (
        "“rivér” is not in the vocabulary; “river”, without accents, stands for it",
        "“1944” is a number; all numbers share one vector",
        "“flooded” is not in the vocabulary; its other form “flood” stands for it",
    )


def test_embed_gives_one_row_a_word_in_double_precision() -> None:
    sentence = load().embed(RIVER)
    assert " ".join(sentence.tokens) == RIVER
    assert sentence.x.shape == (10, 64)
    assert sentence.x.dtype == np.float64
    assert np.array_equal(sentence.x[1], sentence.x[7])
    assert [each.token for each in sentence.found] == list(sentence.tokens)


def test_an_unknown_word_is_an_error_with_a_way_on() -> None:
    with pytest.raises(InputError, match=r"lacks “pizza”.*--vectors FILE") as caught:
        load().embed("the pizza in the river")
    assert "river" not in str(caught.value)
    with pytest.raises(InputError, match=r"lacks “whalle” \(nearest in spelling: whale\b.*\), “zzyzx”\. "):
        load().embed("whalle zzyzx whalle")


def test_many_unknown_words_are_counted_and_the_message_stays_one_line() -> None:
    text = " ".join(f"qx{letter}zq" for letter in "abcdefghijkl")
    with pytest.raises(InputError, match=r"7 more\.") as caught:
        load().embed(text)
    assert "qxezq" in str(caught.value)
    assert "qxfzq" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", " \n", "?! —"])
def test_a_text_without_words_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="no word"):
        load().embed(text)


def test_found_and_sentence_survive_pickling() -> None:
    sentence = pickle.loads(pickle.dumps(load().embed(RIVER)))  # noqa: S301
    assert " ".join(sentence.tokens) == RIVER


def test_errors_are_clearheads_own() -> None:
    with pytest.raises(ClearheadError):
        load().look_up("")
