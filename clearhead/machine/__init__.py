"""The machine room: what processor this is, how kernels are compiled and kept, how threads share a call."""
