"""What can be read of a model's attention over a text, as data: for the page, notebooks and `clearhead inspect`."""
