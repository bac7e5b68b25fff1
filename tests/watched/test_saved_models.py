"""What was seen of a model is the same in a file: each kind of mask, cache, bias and dtype."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from tests.tiny_models import model_of  # noqa: E402
from tests.watched.test_kinds import ENCODER_DECODERS, made  # noqa: E402


def check(seen, path):
    """Compare all that is shown."""
    seen.save(path)
    again = clearhead.load_watch(path)
    assert again.parts() == seen.parts()
    for part, numbers in seen.parts().items():
        assert again.steps(part=part) == seen.steps(part=part)
        assert again.sequences(part=part) == seen.sequences(part=part)
        for number in numbers:
            for sequence in range(seen.sequences(part=part)):
                a, b = (x.layer(number, sequence=sequence, part=part) for x in (seen, again))
                assert a.steps == b.steps
                assert a.heads == b.heads
                assert repr(a.sequence.mask) == repr(b.sequence.mask)
                assert np.array_equal(np.asarray(a.weights), np.asarray(b.weights))
                assert np.array_equal(a.values.astype(b.values.dtype), b.values)
                for ids in ("key_ids", "query_ids"):
                    assert np.array_equal(getattr(a.sequence, ids), getattr(b.sequence, ids))


@pytest.fixture
def tokens():
    torch.manual_seed(1)
    return torch.randint(3, 97, (2, 13))


@pytest.fixture
def mask(tokens):
    mask = torch.ones_like(tokens)
    mask[1, :4] = 0
    return mask


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "gpt_oss"])
def test_decoders(kind, beams, tokens, mask, tmp_path):
    model = model_of(kind)
    with clearhead.watch(model) as seen:
        model.generate(tokens, attention_mask=mask, max_new_tokens=4, do_sample=False, num_beams=beams)
    check(seen, tmp_path / "seen.safetensors")


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoders(name, beams, tokens, mask, tmp_path):
    model = made(ENCODER_DECODERS[name], "sdpa")
    with clearhead.watch(model) as seen:
        model.generate(tokens, attention_mask=mask.flip(1), max_new_tokens=4, do_sample=False, num_beams=beams)
    check(seen, tmp_path / "seen.safetensors")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype, tokens, tmp_path):
    model = model_of("llama", "sdpa").to(dtype)
    with clearhead.watch(model) as seen:
        model(tokens)
    check(seen, tmp_path / "seen.safetensors")


@torch.no_grad()
def test_a_mask_of_ones_own_over_runs_and_heads(tokens, tmp_path):
    model = model_of("llama", "sdpa")
    table = torch.rand(2, 1, 13, 13) < 0.5
    with clearhead.watch(model, heads=[3, 1]) as seen:
        model(tokens)
        model(tokens, attention_mask=table | torch.eye(13, dtype=torch.bool))
    check(seen, tmp_path / "seen.safetensors")
    again = clearhead.load_watch(tmp_path / "seen.safetensors")
    assert len(again.runs) == 2
    assert again.layer(0, run=0).sequence.shown.table is None
    assert again.layer(0).sequence.shown.table is not None
