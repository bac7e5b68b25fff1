"""clearhead: self-attention you can see through."""
