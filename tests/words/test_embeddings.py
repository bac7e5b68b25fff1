"""Word vectors from files of others: text as GloVe, word2vec and fastText write it, and safetensors."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from clearhead.errors import FileError
from clearhead.words import read_embeddings

WORDS = ["the", "river", "Paris", ",", ". . .", "1984"]
ROWS = np.random.default_rng(0).normal(size=(6, 5)).round(4)
LINES = [f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, ROWS, strict=True)]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(LINES),  # GloVe
        "6 5\n" + "\n".join(LINES) + "\n",  # word2vec
        "6 5\n" + " \n".join(LINES) + " \n",  # fastText leaves a blank at each end
        "\ufeff".join(["", "\r\n".join(LINES)]),
        "\n".join(LINES).replace(" ", "\t").replace(".\t.\t.", ". . ."),
    ],
)
def test_text_files_are_read(tmp_path, text):
    (tmp_path / "words.txt").write_text(text, "utf-8", newline="")
    words = read_embeddings(tmp_path / "words.txt")
    assert list(words.words) == WORDS
    assert np.median(np.linalg.norm(words.vectors, axis=1)) == pytest.approx(2**0.5, rel=1e-6)
    np.testing.assert_allclose(words.vectors / words.vectors[0, 0], ROWS / ROWS[0, 0], rtol=1e-5)
    sentence = words.embed("The river by paris in 1984, море")
    assert [found.how for found in sentence.found] == [
        "known",
        "known",
        "nothing",
        "known",
        "nothing",
        "known",
        "nothing",
    ]
    assert "6 words × 5" in words.remarks[0]
    assert words.nearest(sentence.x[1], 1)[0][0] == "river"


def test_what_may_be_wrong_with_a_file_is_said(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("7 5\n" + "\n".join([*LINES, LINES[1]]), "utf-8")
    assert read_embeddings(path).remarks[1:] == (f"There is more than one line for “{WORDS[1]}”: the first is used",)
    path.write_text("9 5\n" + "\n".join(LINES), "utf-8")
    assert read_embeddings(path).remarks[1:] == ("Its header announces 9 words; the file has 6",)
    path = tmp_path / "two.safetensors"
    tensors = {"vectors": ROWS[:2].astype(np.float32), "weight2": np.ones((2, 5), np.float32)}
    save_file(tensors, path, {"vocabulary": "a\nb"})
    assert read_embeddings(path).remarks[1:] == ("Of its 2 tensors, vectors is read",)


@pytest.mark.parametrize("place", ["metadata", "json", "beside", "vocab.txt"])
def test_safetensors_are_read_with_their_vocabulary(tmp_path, place):
    path, words = tmp_path / "words.safetensors", [word for word in WORDS if " " not in word]
    tensors = {"vectors": ROWS[:5].astype(np.float16), "other": np.zeros((2, 2), np.float32)}
    told = {"metadata": "\n".join(words), "json": json.dumps(words)}.get(place)
    save_file(tensors, path, {"vocabulary": told} if told else None)
    if not told:
        name = "words.txt" if place == "beside" else place
        (tmp_path / name).write_text("\n".join(words) + "\n")
    assert list(read_embeddings(path).words) == words


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"the\n", "a word and no numbers"),
        (b"the 1 2\nriver 3\n", "line 2 is not a word and 2 numbers"),
        (b"the 1 2\nriver 3 x\n", "line 2 is not a word and 2 numbers"),
        (b"6 5\n", "no vectors"),
        (b"6 0\n", "vectors of 0 numbers"),
        (b"6 " + b"9" * 5000 + b"\n", "vectors of 99999999 numbers: give 1 to"),
        (b"6 1048576\n", "vectors of 1048576 numbers"),
        (b"the 1 nan\n", "“the” is not finite"),
        (b"the 0 0\n", "all vectors are zero"),
        (b"3000000 300\nthe \x00\x01\x02", "not a text"),
        (b"x" * (1 << 21), "not a text"),
    ],
)
def test_what_is_no_file_of_vectors_is_refused(tmp_path, content, said):
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(FileError, match=said) as raised:
        read_embeddings(tmp_path / "words.txt")
    assert "words.txt" in str(raised.value)


def test_wrong_safetensors_are_refused(tmp_path):
    path = tmp_path / "words.safetensors"
    for tensors, about, said in (
        ({"a": np.zeros((2, 2), np.float32), "b": np.zeros((2, 2), np.float32)}, None, "2 tensors"),
        ({"vectors": np.zeros(3, np.float32)}, None, "0 tensors"),
        ({"vectors": np.zeros((2, 2), np.int8)}, None, "int8"),
        ({"vectors": np.ones((2, 2), np.float32)}, None, "no vocabulary"),
        ({"vectors": np.ones((2, 2), np.float32)}, {"vocabulary": "the"}, "1 words for 2 vectors"),
        ({"vectors": np.ones((2, 2), np.float32)}, {"vocabulary": "[1"}, "not a valid JSON list"),
    ):
        save_file(tensors, path, about)
        with pytest.raises(FileError, match=said):
            read_embeddings(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FileError, match="that can be read"):
        read_embeddings(path)
    with pytest.raises(FileError, match="not there"):
        read_embeddings(tmp_path / "missing.txt")
    with pytest.raises(FileError, match="not there"):
        read_embeddings(tmp_path)


@settings(max_examples=200)
@given(st.binary(max_size=80) | st.text(st.sampled_from("the river 0123.-e\n\t "), max_size=60).map(str.encode))
def test_any_bytes_are_vectors_or_one_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "words.txt"
    path.write_bytes(content)
    try:
        words = read_embeddings(path)
    except FileError:
        return
    assert np.isfinite(words.vectors).all()
    assert len(words.words) == len(words.vectors)
