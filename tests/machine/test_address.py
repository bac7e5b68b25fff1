"""Addresses are numpy's own, however they are asked."""

import numpy as np

from clearhead.machine.address import address, by_interface


def test_addresses_are_numpys(tmp_path):
    x = np.zeros((4, 5, 6), np.float32)
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float64, shape=(3, 4))
    views = [
        x,
        x[1:],
        x[:, ::-1],
        x[..., 2],
        x.T,
        np.broadcast_to(x[0], (9, 5, 6)),
        mapped,
        mapped[1:],
        np.zeros((0, 3)),
    ]
    for view in views:
        assert address(view) == by_interface(view) == view.ctypes.data
