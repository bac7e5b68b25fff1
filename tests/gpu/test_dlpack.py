"""Arrays that have DLPack alone, as numpy and torch describe theirs, against the stand-in for the driver."""

import numpy as np
import pytest

import clearhead
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.gpu import attend
from clearhead.gpu.dlpack import exported
from tests.gpu.comparing import aligned, drawn

CPU, CUDA = 1, 2


class ByDLPack:
    """An array of a library, as if it were on a card; `old` is a library from before DLPack 1.0."""

    def __init__(self, array, *, device=CUDA, old=False) -> None:
        self.array, self.device, self.old, self.streams = array, device, old, []

    def __dlpack_device__(self):
        return self.device, 0

    def __dlpack__(self, *, stream, **options):
        if self.old and options:
            raise TypeError("__dlpack__() got an unexpected keyword argument")
        assert self.old or options == {"max_version": (1, 0), "copy": False}
        self.streams.append(stream)
        return self.array.__dlpack__(**options)


def test_attend_gives_the_cpus_bits(cards):
    """Of dense arrays and views, in their order, and ready for the stream."""
    cards()
    packed = aligned(np.zeros((2, 70, 3, 32)))
    packed[:] = drawn(31, packed.shape)[0]
    q, k, v = packed.transpose(2, 0, 1, 3)
    expected = clearhead.attend(q, k, v)
    for stream, named in ((0, 1), (7, 7)):
        operands = [ByDLPack(q), ByDLPack(k, old=True), ByDLPack(v)]
        out, lse = (ByDLPack(aligned(np.zeros(shape))) for shape in (q.shape, q.shape[:-1]))
        attend(*operands, out=out, lse=lse, stream=stream)
        assert out.array.tobytes() == expected.output.tobytes()
        assert lse.array.tobytes() == expected.lse.tobytes()
        assert [x.streams for x in (*operands, out, lse)] == [[named]] * 5


def test_views_of_torch():
    torch = pytest.importorskip("torch")
    whole = torch.arange(24.0).reshape(2, 3, 4)
    for view in (whole, whole[1:, ::2], whole[..., 2:].transpose(0, 2), whole[:, :0], whole[0, 0, 0]):
        for old in (False, True):
            found = exported(ByDLPack(view, old=old), 0)
            assert found.address == view.data_ptr()
            assert found.shape == view.shape
            assert found.strides is None if view.dim() == 0 else found.strides == tuple(4 * n for n in view.stride())
            assert found.dtype == np.float32
            assert found.readonly == old


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "float64", "complex64"])
def test_dtypes(dtype):
    assert exported(ByDLPack(np.zeros(3, dtype)), 0).dtype == np.dtype(dtype)


def test_what_is_refused(cards):
    cards()
    q, k, v, other = drawn(32, *[(10, 32)] * 4)
    lse = aligned(np.zeros(10))
    with pytest.raises(InputError, match=r"q is a ByDLPack without .*DLPack in a card's memory: copy it to the card"):
        attend(ByDLPack(q, device=CPU), k, v, out=other, lse=lse)
    q, k, v = map(ByDLPack, (q, k, v))
    with pytest.raises(InputError, match=r"out .* is read-only"):
        attend(q, k, v, out=ByDLPack(other, old=True), lse=ByDLPack(lse))
    lse.flags.writeable = False
    with pytest.raises(InputError, match=r"lse .* is read-only"):
        attend(q, k, v, out=ByDLPack(other), lse=ByDLPack(lse))
    with pytest.raises(ShapeError, match=r"out .* overlaps q"):
        attend(q, k, v, out=q, lse=ByDLPack(aligned(np.zeros(10))))
    torch = pytest.importorskip("torch")
    with pytest.raises(DtypeError, match="k is bfloat16: convert it to float32"):
        attend(q, ByDLPack(torch.zeros(10, 32, dtype=torch.bfloat16)), v, out=q, lse=q)
    hidden = ByDLPack(torch.zeros(10, 32, requires_grad=True))
    with pytest.raises(InputError, match=r"v hides its memory: .*gradient.* Pass a copy of it"):
        attend(q, k, hidden, out=q, lse=q)
    hidden.detach = None  # type: ignore[attr-defined]  # as torch tensors have
    with pytest.raises(InputError, match=r"v hides its memory: .*gradient.* Pass v.detach\(\)"):
        attend(q, k, hidden, out=q, lse=q)
