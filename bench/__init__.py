"""clearhead beside its peers: `python -m bench`. See docs/benchmarks.md, which it writes."""
