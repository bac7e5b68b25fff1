"""The worked steps of self-attention: as data (steps), as pages (story, lessons), and in four formats."""

from clearhead.explain.steps import Explanation, explain

__all__ = ["Explanation", "explain"]
