"""What a query may see, as formulas: frozen, printable values, never n×n arrays."""
