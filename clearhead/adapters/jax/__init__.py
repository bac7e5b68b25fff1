"""clearhead in JAX: attention as jax.nn has it."""

from clearhead.adapters.jax.attention import dot_product_attention

__all__ = ["dot_product_attention"]
