"""The shipped word vectors: small, sensible, fit for unscaled attention, and honest about what they stand in for."""

import pickle
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead import causal
from clearhead.definition import textbook
from clearhead.errors import ClearheadError, InputError, ShapeError
from clearhead.words import load
from clearhead.words.vectors import NUMBER_ENTRY

HERE = Path(__file__).parent
RIVER = "the river bank was wet because the river had flooded"


def lines(name: str) -> list[str]:
    return [line for line in (HERE / name).read_text("utf-8").splitlines() if line and not line.startswith("#")]


def unit(word: str) -> np.ndarray:
    vector = load().look_up(word).vector
    return vector / np.linalg.norm(vector)


def near(word: str, count: int = 10) -> list[str]:
    return [other for other, _ in load().nearest(load().look_up(word).vector, count, leave_out=[word])]


# the data


def test_the_files_are_small_and_the_notices_lie_beside_them() -> None:
    here = resources.files("clearhead.words")
    files = ("vocabulary.txt", "irregular.txt", "words.safetensors")
    assert sum(len(here.joinpath(name).read_bytes()) for name in files) <= 2_500_000
    notice = here.joinpath("NOTICE.md").read_text("utf-8")
    assert all(name in notice for name in ("WordNet", "SCOWL", "SmolLM2", "Apache"))


def test_vocabulary_and_vectors_agree() -> None:
    words = load()
    assert words.vectors.shape == (len(words.words), 64)
    assert words.vectors.dtype == np.float32
    assert len(set(words.words)) == len(words.words) == 24_000
    assert np.isfinite(words.vectors).all()
    assert np.linalg.norm(words.vectors, axis=1).min() > 0.08
    assert np.linalg.norm(words.vectors, axis=1).max() < 1.45


def test_loaded_once_and_read_only() -> None:
    assert load() is load()
    with pytest.raises(ValueError, match="read-only"):
        load().vectors[0, 0] = 1


def test_every_word_of_the_vocabulary_is_known_as_itself() -> None:
    words = load()
    for i, word in enumerate(words.words):
        found = words.look_up(word)
        assert (found.how, found.sources) == ("known", (word,))
        assert np.array_equal(found.vector, words.vectors[i])
        if word != NUMBER_ENTRY:
            assert words.embed(word).tokens == (word,)


# what they know, on words chosen before any result was seen


def test_the_odd_one_out_is_found() -> None:
    right = 0
    for line in lines("odd_one_out.txt"):
        x = np.array([unit(word) for word in line.split()])
        right += int((x @ x.T).sum(axis=1).argmin() == 3)
    assert right >= 94


def test_related_pairs_score_above_unrelated_ones() -> None:
    pairs = [line.split() for line in lines("pairs.txt")]
    cosine = np.array([unit(a) @ unit(b) for a, b, _ in pairs])
    related = np.array([int(grade) > 0 for *_, grade in pairs])
    assert (cosine[related][:, None] > cosine[~related]).mean() >= 0.99


@pytest.mark.parametrize(
    ("word", "related"),
    [
        ("river", "creek"),
        ("cat", "dog"),
        ("pizza", "pasta"),
        ("computer", "software"),
        ("bank", "fund"),
        ("mother", "daughter"),
        ("teacher", "professor"),
        ("rain", "rainfall"),
        ("football", "soccer"),
    ],
)
def test_related_words_are_neighbours(word: str, related: str) -> None:
    assert related in near(word, 25)


@pytest.mark.parametrize(
    ("word", "forms"),
    [("bank", "banks banking banked"), ("eat", "ate eaten eating eats"), ("mouse", "mice"), ("mice", "mouse")],
)
def test_neighbours_leave_out_the_words_own_inflections(word: str, forms: str) -> None:
    assert not {word, *forms.split()} & set(near(word, 200))


def test_nearest_sorts_by_cosine_whatever_the_length() -> None:
    words = load()
    vector = words.look_up("sea").vector
    found = words.nearest(vector, 50)
    assert found[0][0] == "sea"
    assert found[0][1] == pytest.approx(1)
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)
    for factor in (1e-300, 1e-3, 1e300):
        assert [word for word, _ in words.nearest(factor * vector, 50)] == [word for word, _ in found]
    assert words.nearest(vector, 0) == []


@pytest.mark.parametrize(("vector", "error"), [(np.zeros(64), InputError), (np.ones(63), ShapeError)])
def test_nearest_refuses_what_has_no_direction_or_another_dim(vector: np.ndarray, error: type[Exception]) -> None:
    with pytest.raises(error):
        load().nearest(vector)
    with pytest.raises(ClearheadError):
        load().nearest(np.full(64, np.nan))


# attention on them


def test_unscaled_attention_looks_at_related_words() -> None:
    sentence = load().embed(RIVER)
    a = textbook.weights_of_rows(sentence.x, sentence.x, [-1], causal(), 1.0)[0]
    share = dict(zip(sentence.tokens, a, strict=True))
    assert share["river"] > 1.5 * share["the"]
    assert 0.2 < share["flooded"] < 0.5  # neither swallows everything nor drowns


@pytest.mark.parametrize(
    ("text", "towards"),
    [
        ("the fisherman rowed across the river to the bank", {"shore", "row", "reef", "seashore"}),
        ("she asked for a loan from the bank", {"loan", "loans", "lending", "mortgage", "lender"}),
    ],
)
def test_context_visibly_moves_a_word(text: str, towards: set[str]) -> None:
    words = load()
    x = words.embed(text).x
    y = textbook.self_attention(x)[-1]
    assert towards & {word for word, _ in words.nearest(y, 6, leave_out=["bank"])}
    assert y @ x[-1] / np.linalg.norm(y) / np.linalg.norm(x[-1]) < 0.93


# words that are not in the vocabulary


@pytest.mark.parametrize(
    ("token", "how", "sources"),
    [
        ("1944", "number", (NUMBER_ENTRY,)),
        ("20th", "number", (NUMBER_ENTRY,)),
        ("rivér", "accents", ("river",)),
        ("gün", "accents", ("gun",)),
        ("dont", "spelling", ("don't",)),
        ("laughed", "inflection", ("laugh",)),
        ("froze", "inflection", ("freeze",)),
        ("river's", "inflection", ("river",)),
        ("he'd've", "inflection", ("he'd",)),
        ("laptoplike", "stem", ("laptop",)),
        ("unfriend", "stem", ("friend",)),
        ("doomscrolling", "compound", ("doom", "scroll")),
        ("schoolmaster", "compound", ("school", "master")),
        ("nord", "letters", ()),
        ("decoction", "letters", ()),
        ("zzqxv", "letters", ()),
        ("море", "nothing", ()),
        ("😀", "nothing", ()),
        ("", "nothing", ()),
    ],
)
def test_every_token_gets_a_vector_and_says_how(token: str, how: str, sources: tuple[str, ...]) -> None:
    found = load().look_up(token)
    assert token not in load().words
    assert (found.how, found.sources) == (how, sources)
    length = np.linalg.norm(found.vector)
    match how:
        case "nothing":
            assert length == 0
        case "letters":
            assert 0.1 < length < 1.3  # how sure it is
        case "stem" | "compound":
            assert length == pytest.approx(2**0.5)
        case _:
            assert np.array_equal(found.vector, load().look_up(sources[0]).vector)


def test_a_guess_that_is_sure_is_longer_than_one_that_is_not() -> None:
    sure, unsure = (np.linalg.norm(load().look_up(word).vector) for word in ("photosensitisation", "xqzvk"))
    assert sure > unsure


def test_notes_say_once_what_stands_in_and_what_is_left_out() -> None:
    notes = load().embed("rivér 1944 rivér laughed laughed blorptax 😀, море!").notes
    assert [note.split(": ")[-1] for note in notes] == [
        "“1944”", "“rivér” (river)", "“laughed” (laugh)", "“blorptax”", "“😀”, “море”", "“,” “!”",
    ]  # fmt: skip
    assert load().embed("the river").notes == ()


def test_long_lists_are_counted() -> None:
    sentence = load().embed(" ".join(f"qx{letter}zq" for letter in "abcdefghijkl"))
    assert "“qxfzq” and 6 more" in sentence.notes[0]
    assert "qxgzq" not in sentence.notes[0]


@pytest.mark.parametrize("text", ["", " \n", "?! —"])
def test_a_text_without_words_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="no word"):
        load().embed(text)


@given(st.text(st.characters(), min_size=1, max_size=30))
def test_no_text_with_an_item_is_refused(text: str) -> None:
    try:
        sentence = load().embed(text)
    except InputError as error:
        assert "no word" in str(error)  # noqa: PT017
    else:
        assert np.isfinite(sentence.x).all()
        assert len(sentence.x) == len(sentence.tokens) >= 1


def test_everyday_sentences_and_pages_of_prose_are_taken() -> None:
    words = load()
    told = {"known": 0, "other": 0, "letters": 0}
    texts = [*lines("sentences.txt"), *(page.read_text("utf-8") for page in sorted((HERE / "prose").iterdir()))]
    assert len(texts) >= 110
    for text in texts:
        sentence = words.embed(text)
        y = textbook.self_attention(sentence.x)
        assert np.isfinite(y).all()
        for found in sentence.found:
            told[found.how if found.how in told else "other"] += 1
    everything = sum(told.values())
    assert told["known"] / everything > 0.85
    assert told["letters"] / everything < 0.06


def test_embed_gives_one_row_a_word_in_double_precision() -> None:
    sentence = load().embed(RIVER)
    assert " ".join(sentence.tokens) == RIVER
    assert (sentence.x.shape, sentence.x.dtype) == ((10, 64), np.float64)
    assert np.array_equal(sentence.x[1], sentence.x[7])


def test_found_and_sentence_survive_pickling() -> None:
    sentence = pickle.loads(pickle.dumps(load().embed(RIVER)))  # noqa: S301
    assert " ".join(sentence.tokens) == RIVER
