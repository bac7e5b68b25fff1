"""Python programs that write machine code: their tables (`abi`), language (`ir`) and parts, and the kernels."""
