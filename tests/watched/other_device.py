"""A model on another device than the processor, watched; prints as JSON what was copied and computed.

Arguments are how it attends and its dtype, as sdpa-bfloat16: a line is printed for each of them.

The device is made of tensors whose numbers lie in host memory, but only for operations on the device: what the host
reads is written down. It belongs to the whole process, so this file runs in one of its own.
"""

import json
import sys
import warnings
from functools import partial

import numpy as np
import torch
import transformers
from torch.utils import _pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import clearhead
from tests.tiny_models import model_of

COMPUTE = ("mm", "addmm", "bmm", "baddbmm", "matmul", "softmax", "attention")
log = {"copies": [], "computed": []}


class Elsewhere(torch.Tensor):
    """A tensor of the other device."""

    own: torch.Tensor  # its numbers
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, own):
        made = torch.Tensor._make_wrapper_subclass(
            cls, own.shape, strides=own.stride(), storage_offset=own.storage_offset(), dtype=own.dtype, device="other:0"
        )
        made.own = own
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):  # type: ignore[override]
        kwargs, name = dict(kwargs or {}), operation.overloadpacket.__name__
        to_host = name == "_to_copy" and "device" in kwargs and torch.device(kwargs["device"]).type == "cpu"
        read = args[1] if name == "copy_" and type(args[0]) is not cls else args[0] if to_host else None
        if read is not None or name == "_local_scalar_dense":
            x = args[0] if read is None else read
            log["copies"].append([list(x.shape), str(x.dtype).removeprefix("torch.")])
        elif any(word in name for word in COMPUTE):
            log["computed"].append(name)
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        own_args, own_kwargs = _pytree.tree_map(lambda x: x.own if isinstance(x, cls) else x, (args, kwargs))
        answer = operation(*own_args, **own_kwargs)
        if read is not None:
            return args[0] if name == "copy_" else answer
        if isinstance(args[0], cls) and name.endswith("_") and name != "_to_copy":
            return args[0]
        return _pytree.tree_map(lambda x: cls(x) if isinstance(x, torch.Tensor) else x, answer)


def made_there(operation, *args, **kwargs):
    """What is made on the device without another tensor."""
    return Elsewhere(operation(*args, **{**kwargs, "device": torch.device("cpu")}))


def tensor_there(data, *, device=None, **options):
    """`torch.tensor`, which torch's Python backend does not offer for numbers of the host."""
    made = torchs_tensor(data, **options)
    return Elsewhere(made) if device is not None and torch.device(device).type == "other" else made


torchs_tensor = torch.tensor


def moved(model):
    """A model whose parameters and buffers are on the other device."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, x in held.items():
                if x is not None:
                    there = Elsewhere(x.detach().clone())
                    held[name] = torch.nn.Parameter(there, False) if held is module._parameters else there
    return model


def decoded(model, tokens, mask):
    """Logits of a prompt and of five single tokens, over a cache."""
    cache, logits = transformers.DynamicCache(config=model.config), []
    for start, stop in ((0, 7), *((n, n + 1) for n in range(7, 12))):
        own = tokens[:, start:stop], mask[:, :stop]
        place = torch.arange(start, stop)[None]
        given = [Elsewhere(x.clone()) for x in (*own, place)]
        logits.append(model(given[0], attention_mask=given[1], position_ids=given[2], past_key_values=cache).logits.own)
    return logits


def make_the_device():
    """Teach torch the other device."""
    _setup_privateuseone_for_python_backend("other")
    libraries = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    libraries[0].fallback(made_there, "PrivateUse1")
    for name in ("default", "start", "start_step"):  # torch would make an empty tensor and resize it
        operation = getattr(torch.ops.aten.arange, name)
        libraries[1].impl(operation.name(), partial(made_there, operation), "PrivateUse1")
    torch.tensor = tensor_there
    return libraries  # which must live as long as the device


def watched_there(attention, dtype):
    """Watch a model there, and compare with the same model here."""
    for found in log.values():
        found.clear()
    torch.manual_seed(1)
    tokens, mask = torch.randint(3, 97, (2, 12)), torch.ones(2, 12, dtype=torch.long)
    mask[1, :3] = 0
    here = model_of("llama", attention).to(getattr(torch, dtype))
    there = moved(model_of("llama", attention).to(getattr(torch, dtype)))
    with torch.no_grad():
        expected = decoded(there, tokens, mask)
        unwatched = {name: list(found) for name, found in log.items()}
        for found in log.values():
            found.clear()
        with clearhead.watch(there) as seen:
            logits = decoded(there, tokens, mask)
        here.set_attn_implementation("eager")
        place = torch.arange(12)[None]
        real = here(tokens, attention_mask=mask, position_ids=place, output_attentions=True).attentions
    errors = [
        float(np.abs(np.asarray(seen.layer(n, sequence=s).weights) - real[n][s, :, b:, b:].float().numpy()).max())
        for n in range(2)
        for s, b in ((0, 0), (1, 3))
    ]
    return {
        "dtype": dtype,
        "equal": all(torch.equal(a, b) for a, b in zip(logits, expected, strict=True)),
        "errors": errors,
        "steps": seen.steps(),
        "ids": seen.token_ids(sequence=1).tolist() == tokens[1, 3:].tolist(),
        "watched": log,
        "unwatched": unwatched,
    }


if __name__ == "__main__":
    device = make_the_device()
    warnings.simplefilter("ignore")
    for asked in sys.argv[1:]:
        print(json.dumps(watched_there(*asked.split("-"))))
