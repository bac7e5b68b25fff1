"""Adapters for other frameworks; each imports only its own framework."""
