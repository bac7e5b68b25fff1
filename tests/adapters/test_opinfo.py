"""torch's own sample inputs for scaled_dot_product_attention, through the drop-in, gradients included."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # torch's samples need it

from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

from clearhead.adapters.torch import sdpa  # noqa: E402

INFO = next(x for x in op_db if x.name == "nn.functional.scaled_dot_product_attention")
EPSILON = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def attended(function, sample, dtype):
    """Output and gradients of a sample in some dtype."""

    def moved(x):
        return (
            x.detach().to(dtype).requires_grad_(x.requires_grad)
            if isinstance(x, torch.Tensor) and x.dtype.is_floating_point
            else x
        )

    q, k, v, *rest = moved(sample.input), *map(moved, sample.args)
    options = {name: moved(x) for name, x in sample.kwargs.items()}
    output = function(q, k, v, *rest, **options)
    inputs = [x for x in (q, k, v, *rest, *options.values()) if isinstance(x, torch.Tensor) and x.requires_grad]
    return output, torch.autograd.grad(output.sum(), inputs)


@pytest.mark.parametrize("dtype", [torch.float64, *EPSILON])
def test_samples(dtype, monkeypatch):
    monkeypatch.setattr(sdpa, "warned_reasons", set())  # those of other tests
    samples = list(INFO.sample_inputs("cpu", dtype, requires_grad=True))
    assert len(samples) >= 25
    for sample in samples:
        output, gradients = attended(sdpa.scaled_dot_product_attention, sample, dtype)
        theirs, their_gradients = attended(sdpa.torchs_own, sample, dtype)
        assert output.shape == theirs.shape
        assert output.dtype == theirs.dtype
        if sample.kwargs.get("dropout_p"):  # other pairs are dropped
            continue
        if dtype is torch.float64:
            torch.testing.assert_close((output, gradients), (theirs, their_gradients))
            continue
        exact, exact_gradients = attended(sdpa.torchs_own, sample, torch.float64)
        for ours, other, true in zip(
            (output, *gradients), (theirs, *their_gradients), (exact, *exact_gradients), strict=True
        ):
            error, least = (ours - true).abs().max(), (other - true).abs().max()
            assert error <= 1.5 * least + EPSILON[dtype] * true.abs().max()
    assert not any("heads" in why or "dtypes" in why for why in sdpa.warned_reasons)
