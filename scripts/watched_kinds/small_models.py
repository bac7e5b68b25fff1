"""Small transformers models with random weights: sizes for the settings that configs have."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from transformers import PreTrainedConfig

SIZES = {
    99: "vocab_size word_vocab_size entity_vocab_size vocab_size_per_layer_input",
    64: "hidden_size d_model n_embd dim embedding_size emb_dim word_embed_proj_dim model_dim",
    96: "intermediate_size d_ff ffn_dim encoder_ffn_dim decoder_ffn_dim n_inner hidden_dim dense_intermediate_size ffn_hidden_size "
    "decoder_ffn_embed_dim",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers num_encoder_layers "
    "num_key_value_heads kv_heads num_kv_heads multi_query_group_num num_experts_per_tok moe_top_k moe_k top_k_experts "
    "num_selected_experts eos_token_id index_n_heads linear_num_key_heads zero_expert_num n_mamba_heads",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads "
    "num_encoder_attention_heads num_decoder_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts "
    "mamba_n_heads mamba_num_heads linear_num_value_heads",
    16: "head_dim d_kv kv_channels attention_head_dim v_head_dim global_head_dim kv_lora_rank query_pre_attn_scalar mamba_d_state "
    "ssm_state_size index_head_dim hidden_size_per_layer_input linear_key_head_dim linear_value_head_dim",
    128: "max_position_embeddings n_positions max_seq_len n_ctx max_target_positions mamba_d_ssm",
    8: "sliding_window attention_chunk_size local_attention window_size qk_rope_head_dim qk_nope_head_dim rotary_dim index_topk "
    "laurel_rank adapter_rank",
    32: "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size q_lora_rank mamba_d_head mamba_head_dim",
    1: "n_group topk_group first_k_dense_replace decoder_sparse_step n_shared_experts num_shared_experts bos_token_id "
    "decoder_start_token_id",
    0: "pad_token_id num_kv_shared_layers",
}
LAYERS = {name for name in SIZES[2].split() if "layer" in name}
SHARP = ("q_proj", "k_proj", "query", ".key", "c_attn", "qkv", "Wqkv", "q_lin", "k_lin", ".q.", ".k.", "q_b_proj")


def small(config, layers, key_heads):
    """What a config and the configs in it are given: sizes where it has some, and nothing that drops at random."""
    usual, given = config(), {}
    for size, names in SIZES.items():
        for name in names.split():
            value = number_of(usual, name)
            if value is None or (isinstance(value, int) and not isinstance(value, bool)):
                given[name] = layers if name in LAYERS else size
    if "num_key_value_heads" in given:
        given["num_key_value_heads"] = 4 if "qk_rope_head_dim" in given else key_heads
    if "qk_rope_head_dim" in given:  # the part of a key that turns, for which tables are made
        given["head_dim"] = given["qk_rope_head_dim"]
    if hasattr(usual, "attn_layer_indices"):
        given["attn_layer_indices"] = [layers - 1]
    for name in ("layer_types", "layers_block_type"):  # one of each kind
        if isinstance(number_of(usual, name), list | tuple):
            kinds = list(dict.fromkeys(getattr(usual, name)))
            given[name] = [kinds[n % len(kinds)] for n in range(layers)]
    for name, value in usual.to_dict().items():
        if isinstance(value, float) and "drop" in name:
            given[name] = 0.0
    for name in usual.sub_configs:
        part = getattr(usual, name, None)
        if isinstance(part, PreTrainedConfig):
            given[name] = type(part)(**small(type(part), layers, key_heads))
    return given


def number_of(config, name):
    """A config's own value; something that is no number where it has none, or none that can be given."""
    own = getattr(type(config), (config.attribute_map or {}).get(name, name), None)
    if isinstance(own, property) and own.fset is None:
        return "none"
    try:
        return getattr(config, name, "none")
    except Exception:  # one for each layer
        return "none"


def built(kind, layers=2, key_heads=2):
    """A small model on eager attention, whose random weights attend more sharply than at the start of training."""
    torch.manual_seed(0)
    config = kind.config_class(**small(kind.config_class, layers, key_heads))
    model = kind._from_config(config, attn_implementation="eager").eval()
    with suppress(Exception):  # experts one after the other know float64
        model.set_experts_implementation("eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "sinks" in name:
                parameter.normal_()
            elif any(part in name for part in SHARP) and parameter.dim() > 1:
                parameter.mul_(6)
    return model
