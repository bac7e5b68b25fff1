"""What a lesson is: rows for programs, a page for readers, and the questions that it answers."""

from dataclasses import dataclass, field
from typing import Any

from clearhead.explain.blocks import Block


@dataclass(frozen=True)
class Lesson:
    """The rows of a lesson, the page that explains them, the questions that it answers, and more for programs."""

    rows: tuple[dict[str, Any], ...]
    page: tuple[Block, ...]
    why: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
