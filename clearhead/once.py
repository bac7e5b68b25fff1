"""A property that is worked out once, without a lock.

`functools.cached_property` takes one before Python 3.12: a fork while another thread works a property out leaves it
locked in the child, for every object of the class. Two threads that ask at once both work it out, and one answer stays.
"""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Answer = TypeVar("Answer")


class cached_property(Generic[Answer]):  # noqa: N801
    """A method as an attribute, which keeps its first answer.

    >>> class Half:
    ...     @cached_property
    ...     def size(self):
    ...         return [0.5]
    >>> half = Half()
    >>> half.size is half.size
    True
    """

    def __init__(self, find: Callable[[Any], Answer]) -> None:
        self.find, self.name = find, find.__name__
        self.__doc__ = find.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Answer: ...

    def __get__(self, instance: object | None, owner: type) -> Self | Answer:
        if instance is None:
            return self
        answer: Answer = instance.__dict__.setdefault(self.name, self.find(instance))
        return answer
