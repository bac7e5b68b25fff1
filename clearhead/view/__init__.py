"""The interactive page that `clearhead view` opens, and its server, which needs the extra `view`."""

from clearhead.view.showing import show

__all__ = ["show"]
