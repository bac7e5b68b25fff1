"""clearhead in PyTorch: attention with gradients, torch's own function and layers, Flex and flash interfaces.

Responsible for the public names. `flash_attn_interface`, `bert_padding` and `layers` have the names of
flash-attention's files, so this package can replace it.
"""

from clearhead.adapters.torch import nn
from clearhead.adapters.torch.attention_api import attend, attention, attention_weights
from clearhead.adapters.torch.flash_attn_interface import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
    flash_attn_with_kvcache,
)
from clearhead.adapters.torch.flex import flex_attention
from clearhead.adapters.torch.sdpa import patch, scaled_dot_product_attention

__version__ = "2.8.3"  # of flash-attention, whose interface this package implements; programs check it

__all__ = [
    "attend",
    "attention",
    "attention_weights",
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
    "flex_attention",
    "nn",
    "patch",
    "scaled_dot_product_attention",
]
