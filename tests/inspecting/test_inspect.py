"""`clearhead inspect` tells the summary's numbers, writes what was asked for, and refuses what is wrong on one line."""

import base64
import json
import os
import re

import numpy as np
import pytest

from clearhead import FileError, InputError, full, weights
from clearhead.attention_weights.notebook import MEANINGS
from clearhead.cli import main
from clearhead.files.text import read_text
from clearhead.inspecting.command import InspectOptions, inspect_heads, print_inspection
from clearhead.inspecting.heads import (
    ORDERS,
    KeyShare,
    heaviest,
    measure_heads,
    rank_keys,
    remainder_text,
    sort_heads,
)
from clearhead.reading.sources import from_layers, from_vectors
from clearhead.words import load

SENTENCE = "the river bank was wet because the river had flooded"


def two_layers():
    q, k = np.random.default_rng(0).standard_normal((2, 6, 30, 8))
    tokens = tuple(f"<{i}>" for i in range(30))
    return from_layers({2: weights(q[:3], k[:3]), 5: weights(q[3:], k[3:])}, tokens, name="a <model>")


def test_the_sheet_holds_the_summarys_means():
    of = two_layers()
    heads = list(measure_heads(of))
    assert [(head.layer, head.head) for head in heads] == [(n, h) for n in (2, 5) for h in range(3)]
    for head in heads:
        matrix = np.asarray(of.stack().head(head.layer, head.head))
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nansum(matrix * np.log(matrix), axis=-1)
        assert head.entropy == pytest.approx(entropy.mean())
        assert head.effective == pytest.approx(np.exp(entropy).mean())
        assert head.first == pytest.approx(matrix[:, 0].mean())
        assert head.strongest == pytest.approx(matrix[:, 1:].max())


@pytest.mark.parametrize("by", ORDERS)
def test_heads_are_sorted(by):
    values = [getattr(head, by) for head in sort_heads(list(measure_heads(two_layers())), by)]
    assert values == sorted(values, reverse=by not in ("layer", "head"))


def test_a_rows_keys_are_the_fewest_that_carry_its_share():
    of = two_layers()
    w = of.stack().head(5, 1)
    row = w.row(20)
    every = rank_keys(w, 20, of.tokens)
    assert [(part.key, part.weight) for part in every] == sorted(enumerate(row), key=lambda entry: -entry[1])
    parts = heaviest(every, share=0.9)
    assert [part.weight for part in parts] == sorted(row, reverse=True)[: len(parts)]
    assert parts[-1].together >= 0.9 > parts[-2].together
    assert all(part.token == f"<{part.key}>" and part.weight == row[part.key] for part in parts)


def kept_in(page):
    """What a page in a file has been told."""
    return json.loads(re.search(r'<script type="application/json" id="kept">(.*?)</script>', page, re.S)[1])


def test_the_page_holds_the_row_and_all_heads(tmp_path):
    of, path = two_layers(), tmp_path / "page.html"
    inspect_heads(of, InspectOptions("layer", 40, (5, 1), 20, None, "png", path, False), lambda done: None)
    made = path.read_text("utf-8")
    assert "<model>" not in made
    assert "http://" not in made.replace("http://www.w3.org/", "")
    kept = kept_in(made)
    w = of.stack().head(5, 1)
    column = 1 + int(np.argmax(w.row(20)[1:]))
    assert kept["state"] == f"layer=5&heads=1&row=20&column={column}"
    told = {name: answer for name, answer in kept["known"].items() if name.startswith("line ")}
    [(name, line)] = told.items()
    assert json.loads(name.partition(" ")[2])["heads"] == [1]
    assert np.array_equal(np.frombuffer(base64.b64decode(line["values"]), np.float32), np.float32(w.row(20)))
    sheets = [answer for name, answer in kept["known"].items() if name.startswith("sheet ")]
    assert [head["head"] for sheet in sheets for head in sheet["heads"]] == [0, 1, 2, 0, 1, 2]
    [tile] = [answer for name, answer in kept["known"].items() if name.startswith("tile ")]
    pixels = np.frombuffer(base64.b64decode(tile["values"]), np.float32).reshape(30, -1)
    assert np.array_equal(pixels[:, :30], np.float32(np.asarray(w)))
    assert not pixels[:, 30:].any()


def test_tokens_show_their_control_characters(capsys):
    w = weights(np.eye(4)[None], np.eye(4)[None])
    of = from_layers({0: w}, ("\n", "a\x1b[1m", " ", "<b>"), name="a model")
    wanted = InspectOptions("layer", 40, (0, 0), 3, None, "png", None, False)
    found = inspect_heads(of, wanted, lambda done: None)
    print_inspection(found)
    told = capsys.readouterr().out
    for shown in (r"\n", r"a\x1b[1m", "␣", "<b>"):
        assert shown in told
    assert "\x1b" not in told
    assert json.loads(found.as_json())["tokens"] == ["\n", "a\x1b[1m", " ", "<b>"]


LONG = " ".join(["river", "the", "of", "man"] * 25 + ["whale"])


def test_json_holds_every_key_and_everything_else_that_is_told(capsys):
    assert main(["inspect", "vectors", LONG, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    x = load().embed(LONG).x
    row = weights(x, x, scale=1.0).row(-1)
    assert {part["key"]: part["weight"] for part in read["row"]["keys"]} == dict(enumerate(row))
    assert read["row"]["keys"][0]["key"] == int(np.argmax(row))
    assert read["notes"] == list(load().embed(LONG).notes)
    assert set(read["heads"][0]) == set(MEANINGS)


def test_what_is_not_listed_is_counted(capsys):
    assert main(["inspect", "vectors", LONG]) == 0
    told = capsys.readouterr().out
    rows = re.findall(r"^ *(\d+)  +\w+ +(\d\.\d{4}) +(> )?[\d.]+ % *$", told, re.M)
    assert len(rows) == 40
    found = re.search(r"… and (\d+) keys more, together ([\d.]+) %: --json lists all\.", told)
    assert int(found[1]) == 101 - 40
    assert float(found[2]) / 100 + sum(float(row[1]) for row in rows) == pytest.approx(1, abs=2e-3)
    assert main(["inspect", "vectors", "the river bank", "--row", "0"]) == 0
    assert "more" not in capsys.readouterr().out  # what is hidden is not left out


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ([0.5, 0.5], ""),
        ([0.995, 0.005], "… and 1 key more, together 0.5 %: --json lists all."),
        ([0.999, 0.0004, 0.0006], "… and 2 keys more, together 0.1 %: --json lists all."),
        ([1 - 1e-7, 1e-7], "… and 1 key more, together < 0.001 %: --json lists all."),
        ([0.0, 0.0], "It sees nothing."),
    ],
)
def test_the_rest_is_told_in_words(weight, said):
    parts = [KeyShare(j, "a", w, float(sum(weight[: j + 1]))) for j, w in enumerate(weight)]
    assert remainder_text(parts, heaviest(parts)) == said


def test_a_query_that_sees_nothing_is_told_so(capsys):
    w = weights(np.eye(2)[None], np.eye(2)[None], mask=~full())
    of = from_layers({0: w}, ("a", "b"), name="a model")
    found = inspect_heads(of, InspectOptions("layer", 1, (0, 0), 0, None, "png", None, False), lambda done: None)
    print_inspection(found)
    assert "It sees nothing." in capsys.readouterr().out


def test_heads_that_are_not_listed_are_counted(capsys):
    of = two_layers()
    for most, said in ((5, "… and 1 head more: --most 0"), (1, "… and 5 heads more: --most 0")):
        print_inspection(
            inspect_heads(of, InspectOptions("layer", most, (2, 0), 0, None, "png", None, False), lambda done: None)
        )
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("columns", [30, 40, 80])
def test_numbers_are_whole_on_a_narrow_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["inspect", "vectors", SENTENCE]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= columns
    of = from_vectors(SENTENCE)
    [head] = measure_heads(of)
    for value in (
        *of.stack().head(0, 0).row(-1),
        head.entropy,
        head.effective,
        head.distance,
        head.first,
        head.strongest,
    ):
        assert f"{value:.4f}" in told


@pytest.mark.parametrize(
    ("row", "query"), [(0, 0), (-1, 9), ("3", 3), ("-10", 0), ("river", 7), ("THE", 6), ("flooded", 9)]
)
def test_a_row_is_a_number_from_either_end_or_a_word(row, query):
    of = from_vectors(SENTENCE)
    assert (
        inspect_heads(of, InspectOptions("layer", 40, (0, 0), row, None, "png", None, False), lambda done: None).query
        == query
    )


def test_words_of_a_model_are_found_without_their_blanks():
    w = weights(np.eye(3)[None], np.eye(3)[None])
    of = from_layers({0: w}, ("the", " river", "\n"), name="a model")
    assert (
        inspect_heads(
            of, InspectOptions("layer", 40, (0, 0), "river", None, "png", None, False), lambda done: None
        ).query
        == 1
    )


@pytest.mark.parametrize("row", ["lake", "10", -11, ""])
def test_a_row_that_is_none_is_refused(row):
    of = from_vectors(SENTENCE)
    wanted = InspectOptions("layer", 40, (0, 0), row, None, "png", None, False)
    with pytest.raises(InputError, match=rf"--row {row} is not one of the 10 items: give 0 to 9, -1 to -10"):
        inspect_heads(of, wanted, lambda done: None)


def test_what_can_be_refused_is_refused_before_a_model_is_read(tmp_path, monkeypatch):
    (tmp_path / "head-0.0-heat.png").touch()
    (tmp_path / "file").touch()
    for plots, made, said in (
        (tmp_path / "file", None, "is a file"),
        (tmp_path, None, "head-0.0-heat.png exists already"),
        (None, tmp_path / "file", "exists already"),
    ):
        with pytest.raises(FileError, match=said):
            InspectOptions("layer", 40, (0, 0), -1, plots, "png", made, False)
    InspectOptions("layer", 40, (0, 0), -1, tmp_path, "png", None, True)
    monkeypatch.setattr("clearhead.inspecting.command.has_matplotlib", lambda: False)
    with pytest.raises(InputError, match="needs matplotlib"):
        InspectOptions("layer", 40, (0, 0), -1, tmp_path / "new", "png", None, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("letter.txt", "letter.txt does not exist: check the path"),
        ("./letter", "./letter does not exist"),
        ("folder.txt", "folder.txt is a folder"),
        ("latin.txt", "latin.txt is not UTF-8 text"),
    ],
)
def test_a_file_that_holds_no_text_is_not_taken_for_the_text(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(FileError, match=re.escape(said)):
        read_text([text])


def test_a_pipe_that_nobody_writes_to_is_empty(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(FileError, match=r"pipe.txt holds no text"):
        read_text([str(tmp_path / "pipe.txt")])


def test_a_text_is_taken_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "marked.txt").write_bytes("\ufeffthe river".encode())
    assert read_text(["marked.txt"]) == "the river"
    for words in (["see letter.txt"], ["and/or"], ["the", "river"], ["word " * 2000], ["a\0b"], ["end."]):
        assert read_text(words) == " ".join(words)


def test_no_step_is_advised_that_inspect_has_not(capsys):
    for words in (["vectors", "?!"], ["vectors", "x", "--embeddings", "none.txt"]):
        assert main(["inspect", *words]) == 2
        assert "--vectors" not in capsys.readouterr().err


def test_vectors_are_inspected_on_the_terminal_and_for_programs(capsys, tmp_path):
    assert main(["inspect", "vectors", SENTENCE]) == 0
    told = capsys.readouterr().out
    (tmp_path / "text.txt").write_text(SENTENCE)
    assert main(["inspect", "vectors", str(tmp_path / "text.txt")]) == 0
    assert capsys.readouterr().out == told
    assert main(["inspect", "vectors", *SENTENCE.split(), "--json", "--row", "2"]) == 0
    read = json.loads(capsys.readouterr().out)
    x = load().embed(SENTENCE).x
    row = weights(x, x, scale=1.0).row(2)
    assert read["row"]["query"] == 2
    assert {part["key"]: part["weight"] for part in read["row"]["keys"]} == dict(enumerate(row))
    assert f"{read['heads'][0]['entropy']:.4f}" in told
    assert "10 items, 1 layer, 1 head." in told


def test_figures_and_the_page_are_written_once(capsys, tmp_path):
    words = [
        "inspect",
        "vectors",
        SENTENCE,
        "--plots",
        str(tmp_path / "figures"),
        "--html",
        str(tmp_path / "page.html"),
    ]
    assert main([*words, "--kind", "svg"]) == 0
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert files == [
        "head-0.0-heat.svg",
        "head-0.0-received.svg",
        "head-0.0-row-9.svg",
        "layer-0-heads.svg",
        "layer-0-profile.svg",
    ]
    before = (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "page.html").read_text() == before
    assert main([*words, "--force"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vectors"], "Nothing to inspect"),
        (["nowhere", "a text"], "nowhere"),
        (["vectors", SENTENCE, "--head", "1"], "LAYER.HEAD"),
        (["vectors", SENTENCE, "--head", "0.1"], "no head 0.1"),
        (["vectors", SENTENCE, "--row", "10"], "0 to 9"),
        (["vectors", SENTENCE, "--sort", "beauty"], "entropy"),
        (["vectors", SENTENCE, "--kind", "gif"], "png"),
    ],
)
def test_wrong_words_are_answered_by_one_line(capsys, words, said):
    assert main(["inspect", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_one_head_that_is_not_there():
    with pytest.raises(InputError, match=r"2\.0 to 2\.2"):
        two_layers().stack().head(3, 0)
    assert from_vectors("the river").stack().head(0, 0).shape == (2, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    place = tmp_path_factory.mktemp("model")
    vocabulary = {word: n for n, word in enumerate(["<unk>", *dict.fromkeys(SENTENCE.split())])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(place)  # noqa: S106
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(place)
    return place


def test_a_models_folder_is_inspected(capsys, folder):
    import torch
    import transformers

    assert main(["inspect", str(folder), SENTENCE, "--head", "1.3", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["tokens"] == SENTENCE.split()
    assert [(head["layer"], head["head"]) for head in read["heads"]] == [(n, h) for n in range(2) for h in range(4)]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        own = model(**tokenizer(SENTENCE, return_tensors="pt"), output_attentions=True).attentions[1][0, 3, -1].numpy()
    for part in read["row"]["keys"]:
        assert part["weight"] == pytest.approx(own[part["key"]], abs=1e-5)


def test_a_saved_watch_is_inspected(capsys, folder, tmp_path):
    import torch
    import transformers

    import clearhead

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad(), clearhead.watch(model, layers=[1]) as seen:
        model(torch.tensor([[1, 2, 3, 4]]))
    seen.save(tmp_path / "seen.safetensors")
    assert main(["inspect", str(tmp_path / "seen.safetensors"), "--head", "1.0"]) == 0
    assert "4 items, 1 layer, 4 heads" in capsys.readouterr().out
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad(), clearhead.watch(model, tokenizer=tokenizer) as named:
        model(**tokenizer(SENTENCE, return_tensors="pt"))
    named.save(tmp_path / "named.safetensors")
    assert main(["inspect", str(tmp_path / "named.safetensors"), "--row", SENTENCE.split()[2], "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["tokens"] == SENTENCE.split()
    assert read["row"]["query"] == len(SENTENCE.split()) - 1 - SENTENCE.split()[::-1].index(SENTENCE.split()[2])
    for words, said in (
        ([str(tmp_path / "seen.safetensors"), "a text"], "no text"),
        ([str(tmp_path), "a text"], "transformers cannot load a model from"),
        ([str(folder)], "Nothing to inspect"),
        ([__file__], "not a saved watch"),
    ):
        assert main(["inspect", *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_what_watch_refuses_is_told_with_a_step_of_inspect(folder, monkeypatch, tmp_path, capsys):
    import transformers

    monkeypatch.setattr("clearhead.reading.models.watch_memory", lambda: 1 << 10)
    assert main(["inspect", str(folder), SENTENCE]) == 2
    error = capsys.readouterr().err
    assert "but 1 KiB is the most: give a shorter text" in error
    assert "memory=" not in error
    monkeypatch.undo()
    config = transformers.BloomConfig(vocab_size=20, hidden_size=16, n_layer=1, n_head=2)
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    assert main(["inspect", str(tmp_path), SENTENCE]) == 2
    error = capsys.readouterr().err
    assert "Give a language model such as" in error


def test_a_saved_watch_names_its_tokens(tmp_path):
    import torch

    import clearhead
    from clearhead.reading.sources import watch_file
    from tests.tiny_models import model_of

    class Tokenizer:
        def decode(self, ids):
            return f"<{ids[0]}>"

    model, ids = model_of("llama", "sdpa"), torch.tensor([[1, 5, 9, 5]])
    for tokenizer, names in ((Tokenizer(), ("<1>", "<5>", "<9>", "<5>")), (None, ("1", "5", "9", "5"))):
        with torch.no_grad(), clearhead.watch(model, tokenizer=tokenizer) as seen:
            model(ids)
        seen.save(tmp_path / "seen.safetensors", force=True)
        assert watch_file(tmp_path / "seen.safetensors")[-1].tokens == names
