"""The processor and its threads: detect the target, compile and store kernels, share calls among threads."""
