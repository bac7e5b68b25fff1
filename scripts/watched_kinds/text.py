"""Text models of transformers: masks, ways of generating, caches, precision, adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
import transformers

from scripts.watched_kinds.media import TEXT, built, tokens
from scripts.watched_kinds.rows import Row
from tests.own_weights import apart, difference, own_weights

BERT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 99}
T5 = {"vocab_size": 99, "d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 4, "pad_token_id": 0} | {
    "decoder_start_token_id": 1, "eos_token_id": None, "dropout_rate": 0.0,
    "relative_attention_max_distance": 8, "relative_attention_num_buckets": 8,
}  # fmt: skip
GREEDY = {"max_new_tokens": 7, "min_new_tokens": 7, "do_sample": False}


def causal(kind: str, attention: str = "sdpa", **more: Any) -> Any:
    """A small decoder."""
    config = getattr(transformers, f"{kind}Config")(**TEXT | {"eos_token_id": None} | more)
    return built(f"{kind}ForCausalLM", config, attention)


llama = partial(causal, "Llama")
mistral = partial(causal, "Mistral", sliding_window=8)


def padded(left: int = 0, right: int = 0, inner: int = 0) -> dict[str, torch.Tensor]:
    """Two sequences, the second padded."""
    text = tokens(2, 17)
    mask = torch.ones_like(text)
    mask[1, :left] = 0
    mask[1, 17 - right :] = 0
    mask[1, 6 : 6 + inner] = 0
    return {"input_ids": text, "attention_mask": mask}


def text_row(name: str, make: Callable[[], Any], given: dict[str, Any], **more: Any) -> Row:
    """A row about text."""
    return Row("text", name, lambda: (make(), dict(given)), **more)


def alone(model: Any, given: Any, seen: Any) -> float:
    """How far each sequence's weights are from those of a single pass of eager attention over its tokens alone."""
    model.set_attn_implementation("eager")
    worst = 0.0
    for sequence in range(seen.sequences()):
        text = torch.tensor(seen.token_ids(sequence=sequence))[None]
        with own_weights(model) as expected:
            model(input_ids=text, use_cache=False)
        for (part, number), passes in expected.items():
            shown = seen.layer(number, sequence=sequence, part=part).weights[...]
            assert shown.shape == passes[0][0].shape, f"layer {number}: {shown.shape}, {tuple(passes[0][0].shape)}"
            worst = max(worst, difference(shown, passes[0][0].double().numpy()))
    return worst


def generation(name: str, make: Callable[[], Any], given: dict[str, Any] | None = None, **options: Any) -> Row:
    """A row about a generated text."""

    def run(model: Any, given: dict[str, Any]) -> Any:
        own = {key: x() if callable(x) else x for key, x in options.items()}
        return model.generate(**given, **GREEDY | own)

    return text_row(name, make, given or padded(left=5), run=run, judge=alone)


def rows() -> Iterator[Row]:
    """Masks, texts, caches, precision, adapters."""
    yield from mask_rows()
    yield from generated_rows()
    yield from cache_rows()
    yield from precision_rows()
    yield from own_code_rows()


def mask_rows() -> Iterator[Row]:
    """Who sees whom in one pass."""
    for name, pads in {"left": padded(5), "right": padded(0, 5), "inner": padded(0, 0, 4)}.items():
        yield text_row(f"Llama, {name} padding", llama, pads)
        yield text_row(f"BERT, {name} padding", lambda: built("BertModel", transformers.BertConfig(**BERT)), pads)
        yield text_row(f"Mistral past its window, {name} padding", mistral, pads)
    tril = torch.ones(1, 1, 17, 17, dtype=torch.bool).tril()
    some = tril.clone()
    some[..., 9:, 3:6] = False
    numbers = torch.zeros(1, 1, 17, 17).masked_fill(~some, torch.finfo(torch.float32).min)
    yield text_row("Llama, a 4-d mask of truths", llama, {"input_ids": tokens(2, 17), "attention_mask": some}, pads=lambda _: {})
    yield text_row("Llama, a 4-d mask of numbers", llama, {"input_ids": tokens(2, 17), "attention_mask": numbers}, pads=lambda _: {})
    places = torch.cat([torch.arange(6), torch.arange(7), torch.arange(4)])[None]
    yield text_row("Llama, packed documents (position_ids)", llama, {"input_ids": tokens(1, 17), "position_ids": places})
    yield text_row("Mistral, packed documents", mistral, {"input_ids": tokens(1, 17), "position_ids": places})
    four = {"attention_chunk_size": 8, "num_local_experts": 2, "interleave_moe_layer_step": 1, "intermediate_size_mlp": 96, "num_hidden_layers": 4}
    chunked = lambda: built("Llama4ForCausalLM", transformers.Llama4TextConfig(**TEXT | four))  # noqa: E731
    yield text_row("Llama 4, chunks", chunked, padded(5))
    for kind in ("T5", "UMT5", "MT5"):
        make = partial(encoder_decoder, kind)
        for name, pads in {"left": padded(5), "right": padded(0, 5), "inner": padded(0, 0, 4)}.items():
            parts = lambda given: {"encoder": given["attention_mask"], "cross": given["attention_mask"]}  # noqa: E731
            yield text_row(f"{kind}, {name} padding", make, pads | {"decoder_input_ids": tokens(2, 9)}, pads=parts)
    parts = lambda given: {"encoder": given["attention_mask"], "cross": given["attention_mask"], "decoder": given["decoder_attention_mask"]}  # noqa: E731
    both = padded(0, 5) | {"decoder_input_ids": tokens(2, 9), "decoder_attention_mask": torch.ones(2, 9, dtype=torch.long)}
    both["decoder_attention_mask"][1, 6:] = 0
    yield text_row("T5, both sides padded", partial(encoder_decoder, "T5"), both, judge=both_padded)
    falcon = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99, "new_decoder_architecture": False}
    for name, more in {"Falcon": {"alibi": False}, "Falcon, ALiBi": {"alibi": True}}.items():
        make = lambda more=more: built("FalconForCausalLM", transformers.FalconConfig(**falcon | more))  # noqa: E731
        yield text_row(f"{name}, left padding", make, padded(5))


def both_padded(model: Any, given: Any, seen: Any) -> float:
    """Padding of the decoder leaves queries of cross-attention in place."""
    model.set_attn_implementation("eager")
    with own_weights(model) as expected:
        model(**given)
    assert len(seen.layer(0, part="decoder", sequence=1).weights) == 4
    pads = {"encoder": given["attention_mask"], "cross": given["attention_mask"], "decoder": given["decoder_attention_mask"]}
    for place in [place for place in expected if place[0] == "cross"]:
        rows = seen.layer(place[1], part="cross", sequence=1).weights.shape[1]
        if rows == 6:
            expected[place] = [x[:, :, :6] for x in expected[place]]
            seen.runs[-1].records[place].views[0] = seen.runs[-1].sequence("cross", place[1], 1)
            del seen.runs[-1].records[place].views[0]
            shown = seen.layer(place[1], part="cross", sequence=1).weights[...]
            assert difference(shown, expected[place][0][1][..., :12].numpy()) < 2e-5
            del expected[place]
    return max(
        difference(seen.layer(n, part=part, sequence=1).weights[...], x[0][1][:, pads[part][1].bool()][..., pads[part][1].bool()].numpy())
        for (part, n), x in expected.items()
    )


def encoder_decoder(kind: str) -> Any:
    """A small T5 with random biases."""
    model = built(f"{kind}ForConditionalGeneration", getattr(transformers, f"{kind}Config")(**T5))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name:
                parameter.normal_()
    return model


def generated_rows() -> Iterator[Row]:
    """Ways of writing a text."""
    yield generation("greedy", llama)
    yield generation("sampled", llama, do_sample=True)
    yield generation("beams", llama, num_beams=3)
    yield generation("beams, all returned", llama, num_beams=3, num_return_sequences=3)
    yield generation("several samples", llama, do_sample=True, num_return_sequences=3)
    yield generation("beams of samples", llama, num_beams=3, do_sample=True)
    one = {key: x[:1] for key, x in padded().items()}
    yield generation("an assistant model", llama, one, assistant_model=lambda: causal("Llama", num_hidden_layers=1))
    yield generation("prompt lookup", llama, one | {"input_ids": one["input_ids"][:, :6].repeat(1, 3)[:, :17]}, prompt_lookup_num_tokens=3)
    yield generation("no cache", llama, one, use_cache=False)
    yield generation("Mistral past its window", mistral)
    yield generation("Mistral, beams past its window", mistral, num_beams=3)


def cache_rows() -> Iterator[Row]:
    """Caches."""
    static = {"cache_implementation": "static", "disable_compile": True}
    yield generation("static cache", llama, **static)
    yield generation("Mistral, static cache past its window", mistral, **static)
    yield generation("Mistral, static cache, beams", mistral, **static, num_beams=2)
    one = {"input_ids": tokens(1, 17)}
    for name, make in {"Llama": llama, "Mistral": mistral}.items():
        yield text_row(f"{name}, a prompt in pieces", make, one, run=pieces, judge=alone)
        yield text_row(f"{name}, two turns on a cache", make, one, run=turns, judge=alone)
    yield text_row("Llama, a cache cut back (crop)", llama, one, run=cropped, judge=alone)
    yield text_row("Llama, a cache filled before", llama, one, run=pieces, judge=later)


def pieces(model: Any, given: Any) -> Any:
    """A text in pieces of several sizes over a cache."""
    cache, outputs = transformers.DynamicCache(config=model.config), []
    for piece in given["input_ids"].split([5, 4, 1, 1, 6], 1):
        outputs.append(model(piece, past_key_values=cache, use_cache=True).logits)
    return outputs


def turns(model: Any, given: Any) -> Any:
    """A second prompt after a generated answer."""
    cache = transformers.DynamicCache(config=model.config)
    first = model.generate(given["input_ids"], past_key_values=cache, **GREEDY)
    return model.generate(torch.cat([first, tokens(1, 4)], 1), past_key_values=cache, **GREEDY)


def cropped(model: Any, given: Any) -> Any:
    """Some tokens are taken back, others written."""
    cache = transformers.DynamicCache(config=model.config)
    a = model(given["input_ids"], past_key_values=cache).logits
    cache.crop(-6)
    b = model(given["input_ids"][:, :3], past_key_values=cache).logits
    return a, b, model(given["input_ids"][:, 7:8], past_key_values=cache).logits


def later(model: Any, given: Any, seen: Any) -> float:
    """A watch that begins in the middle of a text shows the queries that it saw, over all keys."""
    import clearhead

    model.set_attn_implementation("sdpa")
    cache = transformers.DynamicCache(config=model.config)
    model(given["input_ids"][:, :9], past_key_values=cache)
    with clearhead.watch(model) as part:
        model(given["input_ids"][:, 9:], past_key_values=cache)
    return max(difference(part.layer(n).weights[...], seen.layer(n).weights[...][:, 9:]) for n in part.layers())


def precision_rows() -> Iterator[Row]:
    """Precision, training, compilation, adapters."""
    pads = padded(5)
    yield text_row("float64", lambda: llama().double(), pads)
    yield text_row("bfloat16", lambda: llama().bfloat16(), pads, tolerance=2e-2)
    yield text_row("float16", lambda: llama().half(), pads, tolerance=5e-3)
    yield text_row("autocast to bfloat16", llama, pads, run=in_autocast, tolerance=2e-2)
    yield text_row("training, labels and backward", lambda: llama().train(), pads, run=trained, grad=True)
    yield text_row("training, gradient checkpointing", checkpointed, pads, run=trained, again=lambda model, given: model(**given), grad=True)
    yield text_row("torch.compile of the model", lambda: compiled(llama()), pads)
    yield text_row("attn_implementation='eager'", lambda: llama("eager"), pads)
    yield text_row("attn_implementation='flex_attention'", lambda: llama("flex_attention"), pads)
    yield text_row("attn_implementation='clearhead'", with_clearhead, pads)
    with suppress(ImportError):
        import peft

        lora = lambda: peft.get_peft_model(llama(), peft.LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False)).eval()  # noqa: E731
        yield text_row("PEFT, LoRA", lora, pads)
        prefix = lambda: peft.get_peft_model(llama(), peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()  # noqa: E731
        yield text_row("PEFT, prefix tuning", prefix, pads, judge=prefixed)
        prompt = lambda: peft.get_peft_model(llama(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()  # noqa: E731
        yield text_row("PEFT, prompt tuning", prompt, pads, pads=lambda given: {"": torch.cat([torch.ones(2, 4), given["attention_mask"]], 1)})


def prefixed(model: Any, given: Any, seen: Any) -> float:
    """Prefixes are keys without queries."""
    model.base_model.set_attn_implementation("eager")
    with own_weights(model) as expected:
        model(**given)
    worst = 0.0
    for (part, n), passes in expected.items():
        shown = seen.layer(n, part=part).weights[...]
        assert shown.shape[1:] == (17, 21), f"layer {n}: {shown.shape}"
        worst = max(worst, difference(shown, passes[0][0].numpy()))
    return worst


def checkpointed() -> Any:
    """A model that keeps no activations."""
    model = llama().train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def with_clearhead() -> Any:
    """clearhead's own implementation."""
    import clearhead.adapters.transformers

    assert clearhead.adapters.transformers
    return llama("clearhead")


def compiled(model: Any) -> Any:
    """A compiled model, without a compiler."""
    model.compile(backend="eager")
    return model


def in_autocast(model: Any, given: Any) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return model(**given)


def trained(model: Any, given: Any) -> Any:
    """Loss and gradients."""
    model.zero_grad()
    output = model(**given, labels=given["input_ids"], use_cache=False)
    output.loss.backward()
    return [output.loss, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def own_code_rows() -> Iterator[Row]:
    """Models that compute attention by code of their own."""
    bloom = {"vocab_size": 99, "hidden_size": 64, "n_layer": 2, "n_head": 4}
    makers = {
        "Bloom": ("BloomForCausalLM", transformers.BloomConfig(**bloom)),
        "MPT": ("MptForCausalLM", transformers.MptConfig(vocab_size=99, d_model=64, n_layers=2, n_heads=4, max_seq_len=64)),
        "GPT-Neo": ("GPTNeoForCausalLM", transformers.GPTNeoConfig(vocab_size=99, hidden_size=64, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], max_position_embeddings=64)),
        "DeBERTa": ("DebertaV2Model", transformers.DebertaV2Config(**BERT)),
        "XLNet": ("XLNetModel", transformers.XLNetConfig(vocab_size=99, d_model=64, n_layer=2, n_head=4, d_inner=64)),
        "Longformer": ("LongformerModel", transformers.LongformerConfig(**BERT, attention_window=8)),
        "BigBird": ("BigBirdModel", transformers.BigBirdConfig(**BERT, attention_type="original_full")),
        "Mamba": ("MambaModel", transformers.MambaConfig(vocab_size=99, hidden_size=64, num_hidden_layers=2)),
    }  # fmt: skip
    for name, (kind, config) in makers.items():
        yield text_row(name, lambda kind=kind, config=config: built(kind, config, "eager"), padded())
