"""The key/value cache: growing sequences in pages, and as a file."""
