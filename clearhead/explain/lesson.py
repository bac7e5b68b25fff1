"""The contents of a lesson: rows for programs, a page for readers, questions with their answers."""

from dataclasses import dataclass, field
from typing import Any

from clearhead.explain.blocks import Block


@dataclass(frozen=True)
class Lesson:
    """A lesson: its rows, the page that explains them, its questions with answers, and further fields for JSON."""

    rows: tuple[dict[str, Any], ...]
    page: tuple[Block, ...]
    why: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
