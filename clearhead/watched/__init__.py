"""What a model's attention did, kept for any later question, and as a file."""
