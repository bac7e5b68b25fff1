"""clearhead's own small language model as a transformers model: four trained layers of four heads, in milliseconds.

It is what transformers calls Starcoder2, but for its norms, which have no parameters.
"""

from typing import Any

import torch

from clearhead.model import load

PLACES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}  # of each matrix in a layer


def small_model(**options: Any) -> Any:
    """The model that comes with clearhead, in evaluation, to be watched, changed and attributed; downloads nothing.

    `options` go to its configuration, as attn_implementation="clearhead". `clearhead.model.load().tokenizer` has its
    tokenizer: `torch.tensor([tokenizer.encode("She was")])` are tokens for it.

    >>> small_model()(torch.tensor([[0, 5, 9]])).logits.shape
    torch.Size([1, 3, 2048])
    """
    from transformers import Starcoder2Config, Starcoder2ForCausalLM  # which take a while to load

    parameters = load().parameters
    vocabulary, dim = parameters.embedding.shape
    config = Starcoder2Config(
        vocab_size=vocabulary,
        hidden_size=dim,
        intermediate_size=4 * dim,
        num_hidden_layers=len(parameters.layers),
        num_attention_heads=parameters.heads,
        num_key_value_heads=parameters.heads,
        max_position_embeddings=parameters.context,
        use_bias=False,
        sliding_window=None,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=None,
        **options,
    )
    model = Starcoder2ForCausalLM(config).eval()
    norm = torch.nn.RMSNorm(dim, eps=1e-6, elementwise_affine=False)
    model.model.norm = norm
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.from_numpy(parameters.embedding.copy()))
        for layer, own in zip(model.model.layers, parameters.layers, strict=True):
            layer.input_layernorm = layer.post_attention_layernorm = norm
            for name, path in PLACES.items():
                layer.get_submodule(path).weight.copy_(torch.from_numpy(getattr(own, name).T.copy()))
    return model
