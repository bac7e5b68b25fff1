"""What `scripts/soak` does for an hour: works, and what they may not use up."""
