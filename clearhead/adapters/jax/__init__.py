"""clearhead in JAX: attention with the interface of jax.nn."""

from clearhead.adapters.jax.attention import dot_product_attention

__all__ = ["dot_product_attention"]
