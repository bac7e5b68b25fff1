"""`clearhead inspect` tells the summary's numbers, writes what was asked for, and refuses what is wrong on one line."""

import json

import numpy as np
import pytest

from clearhead import InputError, weights
from clearhead.cli import main
from clearhead.inspecting.heads import ORDERS, Inspected, carried, from_vectors, ordered, sheet
from clearhead.inspecting.page import page
from clearhead.words import load

SENTENCE = "the river bank was wet because the river had flooded"


def two_layers():
    q, k = np.random.default_rng(0).standard_normal((2, 6, 30, 8))
    tokens = tuple(f"<{i}>" for i in range(30))
    return Inspected("a <model>", tokens, {2: weights(q[:3], k[:3]), 5: weights(q[3:], k[3:])})


def test_the_sheet_holds_the_summarys_means():
    of = two_layers()
    heads = list(sheet(of))
    assert [(head.layer, head.head) for head in heads] == [(n, h) for n in (2, 5) for h in range(3)]
    for head in heads:
        matrix = np.asarray(of.head(head.layer, head.head))
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nansum(matrix * np.log(matrix), axis=-1)
        assert head.entropy == pytest.approx(entropy.mean())
        assert head.effective == pytest.approx(np.exp(entropy).mean())
        assert head.first == pytest.approx(matrix[:, 0].mean())
        assert head.strongest == pytest.approx(matrix[:, 1:].max())


@pytest.mark.parametrize("by", ORDERS)
def test_heads_are_sorted(by):
    values = [getattr(head, by) for head in ordered(list(sheet(two_layers())), by)]
    assert values == sorted(values, reverse=by not in ("layer", "head"))


def test_a_rows_keys_are_the_fewest_that_carry_its_share():
    of = two_layers()
    w = of.head(5, 1)
    row = w.row(20)
    parts = carried(w, 20, of.tokens, share=0.9)
    assert [part.weight for part in parts] == sorted(row, reverse=True)[: len(parts)]
    assert parts[-1].together >= 0.9 > parts[-2].together
    assert all(part.token == f"<{part.key}>" and part.weight == row[part.key] for part in parts)


def test_the_page_stands_alone_and_trusts_no_text():
    of = two_layers()
    heads = list(sheet(of))
    made = page(of, heads, (5, 1), 20, carried(of.head(5, 1), 20, of.tokens), pictures=True)
    assert "<model>" not in made
    assert "a &lt;model&gt;" in made
    assert "&lt;20&gt;" in made
    assert made.count("data:image/png") == 2 * (2 + 3)
    assert "http" not in made
    assert made.count("<tr>") == 1 + 6 + 1 + len(carried(of.head(5, 1), 20, of.tokens))


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
    assert {part["key"]: part["weight"] for part in read["row"]["keys"]} == {j: row[j] for j in np.argsort(-row)[:3]}
    assert f"{read['heads'][0]['entropy']:.4g}" in told
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
        two_layers().head(3, 0)
    assert from_vectors("the river").head(0, 0).shape == (2, 2)


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
    for words, said in (
        ([str(tmp_path / "seen.safetensors"), "a text"], "no text"),
        ([str(tmp_path), "a text"], "no model that transformers can load"),
        ([str(folder)], "Nothing to inspect"),
        ([__file__], "no saved watch"),
    ):
        assert main(["inspect", *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
