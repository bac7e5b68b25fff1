"""flash-attention's layers, under its names."""
