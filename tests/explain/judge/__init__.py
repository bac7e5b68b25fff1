"""The judge of tests/explain/prose.py, a file for each thing it knows."""
