"""A common slip: a function that makes a mask or a rule, or works in one, given without being called."""

import sys
from types import FunctionType

from clearhead.errors import InputError
from clearhead.rules import functions


def check_called(given: object, name: str) -> None:
    """Raise InputError for one of our own functions, given in place of the mask or rule that it makes or works in."""
    if not isinstance(given, FunctionType):
        return
    module, called = given.__module__ or "", given.__name__  # a function that `exec` made may have no module
    if not module.startswith("clearhead.rules.") or getattr(sys.modules.get(module), called, None) is not given:
        return
    if module == functions.__name__:
        raise InputError(f"{name} is clearhead.functions.{called}, which works on numbers: call it inside a rule.")
    raise InputError(f"{name} is clearhead.{called} itself, not what it makes: call it, as clearhead.{called}(…).")
