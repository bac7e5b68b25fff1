"""clearhead's own small language model as a transformers model: four trained layers of four heads, in milliseconds.

It is what transformers calls Starcoder2, but for its norms. Its last layer copies names, which the examples look for:
after "My mother spoke of Elizabeth. My father spoke of" it says " Elizabeth".
"""

import torch
from transformers import Starcoder2Config, Starcoder2ForCausalLM

import clearhead.model

own = clearhead.model.load()
LAYERS, HEADS = len(own.parameters.layers), own.parameters.heads
TEXT = "My mother spoke of {}. My father spoke of"


def load():
    """The model, in evaluation."""
    vocabulary, dim = own.parameters.embedding.shape
    config = Starcoder2Config(
        vocab_size=vocabulary, hidden_size=dim, intermediate_size=4 * dim, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=own.parameters.context,
        use_bias=False, sliding_window=None, tie_word_embeddings=True, bos_token_id=0, eos_token_id=None,
    )  # fmt: skip
    model = Starcoder2ForCausalLM(config).eval()
    names = {
        "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
        "output": "self_attn.o_proj", "up": "mlp.c_fc", "down": "mlp.c_proj",
    }  # fmt: skip
    norm = torch.nn.RMSNorm(dim, eps=1e-6, elementwise_affine=False)
    model.model.norm = norm
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.from_numpy(own.parameters.embedding.copy()))
        for layer, parameters in zip(model.model.layers, own.parameters.layers, strict=True):
            layer.input_layernorm = layer.post_attention_layernorm = norm
            for name, path in names.items():
                layer.get_submodule(path).weight.copy_(torch.from_numpy(getattr(parameters, name).T.copy()))
    return model


def prompt(name, text=TEXT):
    """A text about somebody, as tokens (1, n)."""
    return torch.tensor([own.tokenizer.encode(text.format(name))])


def token(name):
    """The number of a word that is one token, as it stands after a space."""
    numbers = own.tokenizer.encode(f" {name}")[1:]
    if len(numbers) != 1:
        raise ValueError(f"{name!r} is {len(numbers)} tokens of this model: choose a word that is one.")
    return numbers[0]


def words(tokens):
    """The tokens of a prompt as text."""
    return own.tokenizer.names(tokens[0].tolist())


def preference(model, tokens, name, other):
    """How much more likely one name is than another as the next word: the difference of their logits."""
    logits = model(tokens).logits[0, -1]
    return logits[token(name)] - logits[token(other)]
