"""The pages that can be asked for, each as blocks for readers and as JSON for programs.

Decides what belongs on a page; how blocks look is left to the formats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from clearhead.explain import json, layer, roles, what_if
from clearhead.explain.blocks import Block
from clearhead.explain.lessons import LESSONS
from clearhead.explain.matrices import Matrices
from clearhead.explain.steps import Explanation
from clearhead.explain.story import opening, worked_page


class Page(Protocol):
    """What a format writes."""

    @property
    def explained(self) -> Explanation:
        """What the page is about."""

    def blocks(self, dims: int) -> Sequence[Block]:
        """The page, with so many dims of each vector."""

    def json(self) -> str:
        """Its numbers."""


@dataclass(frozen=True)
class Worked:
    """The worked steps, with every item's weights if asked for; of the designed scene, its matrices too."""

    explained: Explanation
    matrix: bool = False
    designed: bool = False

    def blocks(self, dims: int) -> Sequence[Block]:
        """Steps 1 to 3, and what changed."""
        page = worked_page(self.explained, dims, self.matrix)
        at = len(opening(self.explained))
        if not self.designed:
            return page
        return [*page[:at], *roles.preface(self.explained), *page[at:], roles.outcome(self.explained)]

    def json(self) -> str:
        """Every number of the steps."""
        return json.render(self.explained, self.matrix)


@dataclass(frozen=True)
class OfLayer:
    """A transformer's layer, of the user's matrices or of ones that pick dims."""

    explained: Explanation
    heads: int
    matrices: Matrices | None = None

    def blocks(self, dims: int) -> Sequence[Block]:
        """Its five steps."""
        return layer.page(layer.worked(self.explained, self.heads, self.matrices))

    def json(self) -> str:
        """Its numbers, head by head."""
        return layer.render(layer.worked(self.explained, self.heads, self.matrices))


@dataclass(frozen=True)
class OfLesson:
    """What lies behind the steps: one of LESSONS."""

    explained: Explanation
    name: str

    def blocks(self, dims: int) -> Sequence[Block]:
        """The lesson's page."""
        return LESSONS[self.name](self.explained).page

    def json(self) -> str:
        """The lesson's rows, and the questions that it answers."""
        return json.render_lesson(self.name, LESSONS[self.name](self.explained), self.explained)


@dataclass(frozen=True)
class WhatIf:
    """Another formula beside the right one."""

    explained: Explanation
    name: str

    def blocks(self, dims: int) -> Sequence[Block]:
        """Both, and what follows."""
        return what_if.page(self.explained, self.name, dims)

    def json(self) -> str:
        """Both weights and outputs."""
        return what_if.render(self.explained, self.name)
