"""Small language models of several architectures, with random weights that are the same each time."""

from typing import Any

import torch
import transformers
from torch.nn.attention import flex_attention as flex
from transformers.integrations.flex_attention import WrappedFlexAttention

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
CONFIGS = {
    "llama": (transformers.LlamaConfig, SIZES),
    "qwen2": (transformers.Qwen2Config, SIZES),
    "qwen3": (transformers.Qwen3Config, SIZES | {"head_dim": 16}),
    "mistral": (transformers.MistralConfig, SIZES | {"sliding_window": 8}),
    "gemma2": (
        transformers.Gemma2Config,
        SIZES | {"head_dim": 16, "sliding_window": 8, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 16},
    ),
    "gpt_oss": (
        transformers.GptOssConfig,
        SIZES | {"head_dim": 16, "sliding_window": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
    "gpt2": (
        transformers.GPT2Config,
        {
            "vocab_size": 97,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "pad_token_id": 0,
        }
        | {"bos_token_id": 1, "eos_token_id": None, "attn_pdrop": 0.0},
    ),
}


def config_of(name: str, layers: int = 2, **changes: int) -> transformers.PretrainedConfig:
    """An architecture at its smallest."""
    kind, sizes = CONFIGS[name]
    return kind(**sizes | changes, num_hidden_layers=layers)


def model_of(name: str, attention: str = "eager", layers: int = 2, **changes: int) -> transformers.PreTrainedModel:
    """A model whose attention is sharper than at the start of training."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        config_of(name, layers, **changes), attn_implementation=attention
    ).eval()
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            if "sinks" in own:
                parameter.normal_()
            elif "q_proj" in own or "k_proj" in own or "c_attn" in own:
                parameter.mul_(6)
    return model


def run_flex_as_it_is(monkeypatch: Any) -> None:
    """Keep transformers from compiling flex_attention, which takes some ten seconds."""
    monkeypatch.setattr(WrappedFlexAttention, "_is_flex_compiled", True)
    monkeypatch.setattr(WrappedFlexAttention, "training", False, raising=False)
    monkeypatch.setattr(WrappedFlexAttention, "_compiled_flex_attention", staticmethod(flex.flex_attention))
