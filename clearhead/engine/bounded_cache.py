"""A dictionary of what was prepared, which forgets before it takes too much memory."""

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

SMALL = 1 << 16  # bytes that an entry may hold without being counted as large


class BoundedCache(dict[Key, Value]):
    """At most `most` entries; at most `most_large` of them, the newest, hold more than a little memory.

    Each step leaves the dictionary whole: another thread, or a signal handler in this one, may come between any two.
    """

    def __init__(self, most: int, most_large: int = 8) -> None:
        super().__init__()
        self.most, self.most_large = most, most_large
        self.large: dict[Key, None] = {}  # keys of large entries, oldest first

    def keep(self, key: Key, value: Value, size: int) -> None:
        """Enter a value that holds `size` bytes; a full cache is emptied first, for what is used comes back."""
        if len(self) >= self.most:
            self.clear()
        if size > SMALL:
            if not self.most_large:
                return
            for oldest in list(self.large)[: max(0, len(self.large) + 1 - self.most_large)]:
                self.large.pop(oldest, None)
                self.pop(oldest, None)
            self.large[key] = None
        self[key] = value

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.large.clear()
