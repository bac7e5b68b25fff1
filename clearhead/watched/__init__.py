"""A model's attention, recorded for later questions, and saved as a file."""
