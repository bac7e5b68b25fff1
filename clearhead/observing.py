"""Let a handler see every attention call of a PyTorch model, transformers' or not."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def observing(model: Any, handler: Any) -> Iterator[None]:
    """Let a handler (`adapters.torch.calls.Handler`) see and answer a model's attention calls inside the block.

    A model that torch.compile compiled runs uncompiled meanwhile.
    """
    import torch

    from clearhead.adapters.torch.calls import handlers
    from clearhead.adapters.torch.intercept import intercepting

    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if "transformers" in sys.modules:
            from clearhead.adapters.transformers.interface import intercepting_interface

            stack.enter_context(intercepting_interface())
        stack.enter_context(intercepting(model, handler, handlers))
        yield
