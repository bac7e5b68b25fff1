"""Changes of a model's attention as values: what they change, where, and the rules that they come to."""
