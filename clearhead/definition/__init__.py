"""What attention means: `textbook` in the words of the formula, `canonical` in the order of every rounding."""
