"""A dictionary with bounded memory, for launches and other values that can be prepared again."""

from typing import TypeVar

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

SMALL = 1 << 16  # entries that hold more bytes than this count as large
MOST_BYTES = 1 << 27  # that all large ones hold


class BoundedCache(dict[KeyT, ValueT]):
    """At most `most` entries, of which only the newest `most_large` may be large, and hold MOST_BYTES together.

    The dictionary is consistent after each step, since another thread or a signal handler may run between any two.
    """

    def __init__(self, most: int, most_large: int = 8) -> None:
        super().__init__()
        self.most, self.most_large = most, most_large
        self.large: dict[KeyT, int] = {}  # bytes of large entries, oldest first

    def keep(self, key: KeyT, value: ValueT, size: int) -> None:
        """Store a value that holds `size` bytes. A full cache is emptied first; entries still in use soon return."""
        if len(self) >= self.most:
            self.clear()
        if size > SMALL:
            if not self.most_large or size > MOST_BYTES:
                return
            for oldest in list(self.large):
                if len(self.large) < self.most_large and sum(self.large.values()) + size <= MOST_BYTES:
                    break
                self.large.pop(oldest, None)
                self.pop(oldest, None)
            self.large[key] = size
        self[key] = value

    def clear(self) -> None:
        """Remove all entries."""
        super().clear()
        self.large.clear()
