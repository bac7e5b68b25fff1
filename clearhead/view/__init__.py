"""The page `clearhead view` opens: self-attention to touch. Its server needs the extra `view`."""
