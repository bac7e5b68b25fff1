"""Values that a forward call saves for its derivatives: operands, rules, and the unrounded output."""

from dataclasses import dataclass, replace

from clearhead.arrays import Array
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import Problem, problem_of


@dataclass(frozen=True)
class Residuals:
    """Saved values of one call. Its score rules stay as traced then, since captured variables may change later."""

    operands: Operands
    rules: Rules
    threads: int | None
    output: Array  # unrounded: float32 for 16-bit operands

    @property
    def problem(self) -> Problem:
        """The call as a problem. Its rules are trusted: the forward call found no pair without a value."""
        problem = problem_of(self.operands, self.rules, out=self.output, unrounded=True)
        return replace(problem, rules=problem.rules.trusted)
