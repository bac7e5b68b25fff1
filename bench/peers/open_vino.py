"""OpenVINO: its scaled_dot_product_attention, compiled for the CPU."""

from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.cli.race import Contender


def sdpa(q: Array, k: Array, v: Array, *, causal: bool = True) -> Contender:
    """scaled_dot_product_attention in float32 on one thread, which wants as many key heads as query heads."""
    import openvino
    from openvino import opset13

    if k.shape[1] != q.shape[1]:
        raise ValueError("its scaled_dot_product_attention shares no key heads")
    operands = [opset13.parameter(x.shape, np.float32) for x in (q, k, v)]
    model = openvino.Model([opset13.scaled_dot_product_attention(*operands, causal=causal)], operands)
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    for n, x in enumerate((q, k, v)):
        request.set_input_tensor(n, openvino.Tensor(x, shared_memory=True))

    def call() -> Any:
        request.infer()
        return request.get_output_tensor(0)

    return Contender(call, lambda answer: np.asarray(answer.data))
