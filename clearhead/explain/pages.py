"""The pages of `clearhead explain`, each as blocks for readers and as JSON for programs.

Responsible for the contents of a page. Not for the looks of its blocks, which the formats decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from clearhead.explain import json, layer, roles, what_if
from clearhead.explain.blocks import Block
from clearhead.explain.lessons import LESSONS
from clearhead.explain.matrices import Matrices
from clearhead.explain.steps import Explanation
from clearhead.explain.story import page_opening, worked_page


class Page(Protocol):
    """A page that any format can write."""

    @property
    def explained(self) -> Explanation:
        """The explanation that the page is about."""

    def blocks(self, dims: int) -> Sequence[Block]:
        """The page's blocks, showing `dims` dims of each vector."""

    def json(self) -> str:
        """The page's numbers as JSON."""


@dataclass(frozen=True)
class WorkedPage:
    """The worked steps; with `matrix`, also every item's weights; if `designed`, also the scene's matrices."""

    explained: Explanation
    matrix: bool = False
    designed: bool = False

    def blocks(self, dims: int) -> Sequence[Block]:
        """Steps 1 to 3, and what they changed."""
        page = worked_page(self.explained, dims, self.matrix)
        at = len(page_opening(self.explained))
        if not self.designed:
            return page
        return [*page[:at], *roles.preface(self.explained), *page[at:], roles.outcome(self.explained)]

    def json(self) -> str:
        """Every number of the steps."""
        return json.render(self.explained, self.matrix)


@dataclass(frozen=True)
class LayerPage:
    """A transformer's layer, with the user's matrices or with ones that select dims."""

    explained: Explanation
    heads: int
    matrices: Matrices | None = None

    def blocks(self, dims: int) -> Sequence[Block]:
        """The layer's five steps."""
        return layer.layer_page(layer.work_out_layer(self.explained, self.heads, self.matrices))

    def json(self) -> str:
        """The layer's numbers, head by head."""
        return layer.layer_json(layer.work_out_layer(self.explained, self.heads, self.matrices))


@dataclass(frozen=True)
class LessonPage:
    """One of LESSONS."""

    explained: Explanation
    name: str

    def blocks(self, dims: int) -> Sequence[Block]:
        """The lesson's page."""
        return LESSONS[self.name](self.explained).page

    def json(self) -> str:
        """The lesson's rows, and its questions with answers."""
        return json.render_lesson(self.name, LESSONS[self.name](self.explained), self.explained)


@dataclass(frozen=True)
class WhatIfPage:
    """Another formula compared with the right one."""

    explained: Explanation
    name: str

    def blocks(self, dims: int) -> Sequence[Block]:
        """Both formulas, their results, and the consequence."""
        return what_if.what_if_page(self.explained, self.name, dims)

    def json(self) -> str:
        """The weights and outputs of both formulas."""
        return what_if.what_if_json(self.explained, self.name)
