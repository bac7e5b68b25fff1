"""ONNX Runtime: models of one node, one thread that never spins, inputs and outputs bound to where they lie."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.peers.layout import heads_first, positions_first
from clearhead.arrays import Array
from clearhead.cli.race import Contender

MICROSOFT = "com.microsoft"


def attention(q: Array, k: Array, v: Array) -> Contender:
    """ONNX's own Attention, causal."""
    from onnx import helper

    inputs = dict(zip("qkv", (q, k, v), strict=True))
    node = helper.make_node("Attention", list(inputs), ["out"], is_causal=1)
    return bound(node, inputs, np.zeros_like(q), np.asarray)


def multi_head(q: Array, k: Array, v: Array) -> Contender:
    """MultiHeadAttention, causal."""
    from onnx import helper

    inputs = {name: positions_first(x, flat=True) for name, x in zip("qkv", (q, k, v), strict=True)}
    node = helper.make_node(
        "MultiHeadAttention", list(inputs), ["out"], domain=MICROSOFT, num_heads=q.shape[1], unidirectional=1
    )
    return bound(node, inputs, np.zeros_like(inputs["q"]), lambda y: heads_first(y, q.shape[-1]))


def grouped_query(q: Array, k: Array, v: Array) -> Contender:
    """GroupQueryAttention; what is past and what is present share one buffer of keys and of values."""
    from onnx import helper

    queries, keys = q.shape[2], k.shape[2]
    inputs = {
        "q": positions_first(q, flat=True),
        "k": positions_first(k[:, :, -queries:], flat=True),
        "v": positions_first(v[:, :, -queries:], flat=True),
        "keys": k.copy(),
        "values": v.copy(),
        "last": np.full(len(q), keys - 1, np.int32),
        "total": np.array([keys], np.int32),
    }
    node = helper.make_node(
        "GroupQueryAttention", list(inputs), ["out", "new_keys", "new_values"], domain=MICROSOFT,
        num_heads=q.shape[1], kv_num_heads=k.shape[1],
    )  # fmt: skip
    return bound(
        node, inputs, np.zeros_like(inputs["q"]), lambda y: heads_first(y, q.shape[-1]), shared=("keys", "values")
    )


def bound(
    node: Any, inputs: dict[str, Array], output: Array, read: Callable[[Any], Array], shared: Sequence[str] = ()
) -> Contender:
    """A contender whose inputs and output stay where they are; outputs `new_x` share the memory of inputs `x`."""
    from onnxruntime import OrtValue

    runner = session(node, inputs, {"out": output.shape} | {f"new_{x}": inputs[x].shape for x in shared})
    values = {x: OrtValue.ortvalue_from_numpy(array) for x, array in inputs.items()}
    result, binding = OrtValue.ortvalue_from_numpy(output), runner.io_binding()
    for x, value in values.items():
        binding.bind_ortvalue_input(x, value)
    binding.bind_ortvalue_output("out", result)
    for x in shared:
        binding.bind_ortvalue_output(f"new_{x}", values[x])

    def call() -> Any:
        runner.run_with_iobinding(binding)
        return result

    return Contender(call, lambda answer: read(answer.numpy()))


def session(node: Any, inputs: dict[str, Array], outputs: dict[str, tuple[int, ...]]) -> Any:
    """A session of one node."""
    import onnxruntime
    from onnx import TensorProto, helper

    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
    graph = helper.make_graph(
        [node],
        "attention",
        [helper.make_tensor_value_info(name, kinds[x.dtype], x.shape) for name, x in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
    )
    versions = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=11)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
