"""Gradients of attention: reverse mode, forward mode and second derivatives."""
