"""Attention worked out step by step: as data (steps), as pages (story, lessons, what_if, layer), in five formats."""

from clearhead.explain.notebook import Worked, explain
from clearhead.explain.steps import Explanation

__all__ = ["Explanation", "Worked", "explain"]
