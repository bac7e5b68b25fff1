"""Attention on NVIDIA GPUs with the CPU's bits: the kernel, the driver that runs it, and `attend` of a card's arrays."""




