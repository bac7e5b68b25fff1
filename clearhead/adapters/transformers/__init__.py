"""transformers models on clearhead's kernels: importing this registers `attn_implementation="clearhead"`."""

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from clearhead.adapters.transformers.attention import NAME, attention_forward, mask_forward

__all__ = ["NAME", "attention_forward", "mask_forward"]

# torch.compile goes around both: it would otherwise try to follow numpy into the kernels.
AttentionInterface.register(NAME, torch.compiler.disable(attention_forward))
AttentionMaskInterface.register(NAME, torch.compiler.disable(mask_forward))
