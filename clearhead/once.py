"""A property that is computed once, without a lock.

Before Python 3.12, `functools.cached_property` takes a lock: if a process forks while another thread computes a
property, it stays locked in the child, for all objects of the class. Here, two threads may both compute it; one result
is kept.
"""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Answer = TypeVar("Answer")


class cached_property(Generic[Answer]):  # noqa: N801
    """Turn a method into an attribute that keeps its first result.

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
