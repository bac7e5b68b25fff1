"""What kernels are put together from."""
