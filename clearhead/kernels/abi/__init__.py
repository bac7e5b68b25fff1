"""What Python writes and machine code reads: tables, tiles, variants. Plain data."""
