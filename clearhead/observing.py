"""Let a handler see every attention call of a PyTorch model, transformers' or not."""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


class Uncompiled:
    """A context in which torch.compile compiles nothing; blocks may end in another order than they began."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks = 0
        self.stance: Any = None

    def __enter__(self) -> None:
        import torch

        with self.lock:
            self.blocks += 1
            if self.blocks == 1:
                self.stance = torch.compiler.set_stance("force_eager")
                self.stance.__enter__()

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.blocks -= 1
            if not self.blocks:
                self.stance.__exit__(None, None, None)


uncompiled = Uncompiled()


@contextmanager
def observing(model: Any, handler: Any) -> Iterator[None]:
    """Let a handler (`adapters.torch.calls.Handler`) see and answer a model's attention calls inside the block.

    A model that torch.compile compiled runs uncompiled meanwhile.
    """

    from clearhead.adapters.torch.calls import handlers
    from clearhead.adapters.torch.intercept import intercepting

    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(uncompiled)
        if "transformers" in sys.modules:
            from clearhead.adapters.transformers.interface import intercepting_interface

            stack.enter_context(intercepting_interface())
        stack.enter_context(intercepting(model, handler, handlers))
        yield
