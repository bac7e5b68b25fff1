"""Keys and values of what has been seen so far, in pages, and as a file."""
