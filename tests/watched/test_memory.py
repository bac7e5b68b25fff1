"""A watch keeps no more than it may, says so, and keeps whole passes whatever ends a model's run."""

from contextlib import suppress

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from clearhead.errors import InputError  # noqa: E402
from clearhead.watched.records import MemoryLimitError  # noqa: E402
from tests.tiny_models import model_of  # noqa: E402
from tests.watched.eager import compare  # noqa: E402

TOKEN = 4 * (4 * 16 + 2 * 2 * 16)  # bytes of a token in one layer of one sequence: 4 queries, 2 keys, 2 values of 16
BESIDE = 8000  # bytes of masks, tokens and checked rows


@pytest.fixture
def tokens():
    torch.manual_seed(1)
    return torch.randint(3, 97, (2, 21))


@pytest.fixture(scope="module")
def model():
    return model_of("llama", "sdpa", layers=3)


def generate(model, tokens, count=6):
    return model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=count, do_sample=False)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_kept_is_queries_keys_and_values_once(dtype, tokens):
    own = model_of("llama", "sdpa", layers=3).to(dtype)
    with clearhead.watch(own) as seen:
        generate(own, tokens)
    expected = 3 * 2 * 26 * TOKEN * dtype.itemsize // 4
    assert expected <= seen.nbytes <= expected + 3 * BESIDE
    assert seen.spent == seen.nbytes
    for layer in range(3):
        seen.layer(layer)
    assert seen.nbytes <= expected + 3 * BESIDE


@torch.no_grad()
def test_chosen_heads_and_layers_take_their_share(model, tokens):
    with clearhead.watch(model, layers=[1], heads=[2]) as seen:
        model(tokens)
    expected = 2 * 21 * 4 * (16 + 2 * 16)
    assert expected <= seen.nbytes <= expected + BESIDE


@torch.no_grad()
def test_a_text_that_does_not_fit_is_refused_in_its_first_layer(model, tokens):
    reached = []
    hook = model.model.layers[1].register_forward_pre_hook(lambda *_: reached.append(1))
    why = r"with layers 0 to 2 of decoder the watch would hold [\d.]+ KiB, more than memory=1000 \(1000 bytes\): choose"
    with pytest.raises(MemoryLimitError, match=why) as told, clearhead.watch(model, memory=1000):
        model(tokens)
    hook.remove()
    assert not reached
    assert 3 * 2 * 21 * TOKEN <= told.value.needed <= 3 * 2 * 21 * TOKEN + 3 * BESIDE


@torch.no_grad()
def test_what_is_just_enough_is_enough(model, tokens):
    with clearhead.watch(model) as all_of_it:
        model(tokens)
    with clearhead.watch(model, memory=all_of_it.nbytes) as seen:
        model(tokens)
    assert not seen.stopped
    assert seen.nbytes == all_of_it.nbytes


@torch.no_grad()
@pytest.mark.parametrize("passes", [0, 1, 2])
def test_texts_until_memory_is_full(passes, model, tokens, tmp_path):
    with clearhead.watch(model) as all_of_it:
        model(tokens)
    one = all_of_it.nbytes
    with clearhead.watch(model, memory=int((passes + 0.9) * one)) as seen:
        for _ in range(passes):
            model(tokens)
        with pytest.raises(InputError, match=r"choose layers=… or heads=…, or give more memory"):
            model(tokens)
    assert [sorted(run.records) for run in seen.runs] == [[("decoder", n) for n in range(3)]] * passes
    assert seen.nbytes == seen.spent == passes * one
    if passes:
        assert seen.summary("entropy").entropy.shape == (3, 4, 21)
        seen.save(tmp_path / "seen.safetensors")
        assert clearhead.load_watch(tmp_path / "seen.safetensors").steps() == (21,)


@torch.no_grad()
def test_a_generated_text_goes_on_unwatched_when_memory_is_full(model, tokens):
    expected = generate(model, tokens, 12)
    with clearhead.watch(model) as all_of_it:
        generate(model, tokens, 12)
    memory = int(all_of_it.nbytes * 0.85)
    with clearhead.watch(model, memory=memory) as seen, pytest.warns(UserWarning, match="the watch stopped") as told:
        text = generate(model, tokens, 12)
    assert torch.equal(text, expected)
    assert len(told) == 1
    assert f"memory={memory}" in seen.stopped
    assert "the model goes on unwatched" in seen.stopped
    assert seen.stopped in repr(seen)
    assert 2 < len(seen.steps()) < 12
    assert len({len(record.passes) for record in seen.runs[0].records.values()}) == 1
    assert seen.nbytes == seen.spent <= memory
    count = sum(seen.steps())
    for layer in range(3):
        a, b = (np.asarray(watched.layer(layer).weights) for watched in (seen, all_of_it))
        np.testing.assert_allclose(a, b[:, :count, :count], atol=1e-7)


def fail_in_layer(model, number, error):
    """Let a layer of the model fail after its attention."""

    def fail(*_):
        raise error

    return model.model.layers[number].mlp.register_forward_pre_hook(fail)


@torch.no_grad()
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_pass_that_fails_leaves_nothing(error, model, tokens):
    with clearhead.watch(model) as seen:
        model(tokens)
        hook = fail_in_layer(model, 1, error)
        with pytest.raises(error):
            model(tokens)
        if error is not KeyboardInterrupt:  # torch calls no hook then: the next call, or the end, finds out
            assert len(seen.runs) == 1
        hook.remove()
        model(tokens[:, :9])
        hook = fail_in_layer(model, 1, error)
        with pytest.raises(error):
            model(tokens)
        hook.remove()
    assert [seen.steps(run) for run in range(len(seen.runs))] == [(21,), (9,)]
    assert seen.spent == seen.nbytes
    assert not any(module._forward_hooks for module in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_text_goes_on_after_a_pass_that_failed(error, layer, model, tokens):
    def step(cache, count):
        return model(tokens[:, cache.get_seq_length() :][:, :count], past_key_values=cache)

    cache = transformers.DynamicCache(config=model.config)
    with clearhead.watch(model) as seen:
        step(cache, 9)
        step(cache, 1)
        hook = fail_in_layer(model, layer, error)
        with pytest.raises(error):
            step(cache, 1)
        hook.remove()
        for own in cache.layers:
            own.keys, own.values = own.keys[:, :, :10], own.values[:, :, :10]
        while cache.get_seq_length() < 21:
            step(cache, 1)
    assert seen.steps() == (9, *[1] * 12)
    assert seen.spent == seen.nbytes
    model.set_attn_implementation("eager")
    compare(seen, model(tokens, output_attentions=True).attentions)
    model.set_attn_implementation("sdpa")


@torch.no_grad()
def test_a_failed_pass_gives_its_memory_back(model, tokens):
    with clearhead.watch(model) as seen:
        model(tokens)
    enough = int(1.5 * seen.nbytes)
    hook = fail_in_layer(model, 2, ZeroDivisionError)
    with clearhead.watch(model, memory=enough) as again:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                model(tokens)
        hook.remove()
        model(tokens)
    assert again.nbytes == seen.nbytes


@pytest.mark.parametrize("fails", [False, True])
def test_no_tensor_is_held_after_the_block(fails, model, tokens):
    with suppress(ValueError), torch.no_grad(), clearhead.watch(model) as seen:
        model(tokens)
        model(tokens + 1)
        held = [record.sample for run in seen.runs for record in run.records.values()]
        if fails:
            raise ValueError
    assert held
    assert all(isinstance(x, torch.Tensor) for x in held)
    assert all(record.sample is None for run in seen.runs for record in run.records.values())
    seen.layer(0, run=0)
