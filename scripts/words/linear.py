"""The linear algebra of the vectors: unit rows, truncated SVD, principal components, ridge regression.

One thread and fixed seeds, so that one machine computes the same bits in every run.
"""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Matrix = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_SEED = 0


def unit(x: Matrix) -> Matrix:
    """Each row at length 1; a row of zeros stays."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.maximum(length, 1e-9)


def sparse(rows: list[int], columns: list[int], values: list[float], shape: tuple[int, int]) -> sp.csr_matrix:
    """The float32 matrix with these entries; entries at one place add up."""
    return sp.csr_matrix((np.array(values, np.float32), (rows, columns)), shape=shape)


def truncated_svd(m: sp.csr_matrix, rank: int) -> tuple[Matrix, Matrix]:
    """The first left singular vectors (rows, rank) and singular values, by random projection and power steps."""
    transposed = m.T.tocsr()
    start = np.random.default_rng(_SEED).standard_normal((m.shape[1], rank + 32)).astype(np.float32)
    basis, _ = np.linalg.qr(m @ start)
    for _ in range(4):
        basis, _ = np.linalg.qr(m @ (transposed @ basis))
    u, s, _ = np.linalg.svd((transposed @ basis).T, full_matrices=False)
    return (basis @ u)[:, :rank], s[:rank]


def principal(x: Matrix, dim: int, power: float, drop: int = 0) -> Matrix:
    """The `dim` directions of largest variance after the first `drop`, their deviations raised to `power`."""
    x = x - x.mean(axis=0)
    variance, directions = np.linalg.eigh((x.T @ x / len(x)).astype(np.float64))  # ascending
    order = np.arange(len(variance))[::-1][drop : drop + dim]
    scale = np.sqrt(variance[order]) ** (power - 1)
    return (x @ directions[:, order] * scale).astype(np.float32)


def ridge(x: Matrix, y: Matrix, penalty: float) -> Matrix:
    """The w (x's columns, y's columns) of least ‖x w − y‖² + penalty ‖w‖²."""
    gram = (x.T @ x).astype(np.float64) + penalty * np.eye(x.shape[1])
    return np.linalg.solve(gram, x.T @ y).astype(np.float32)


def sparse_ridge(x: sp.csr_matrix, y: Matrix, penalty: float, steps: int = 40) -> Matrix:
    """The same for a sparse x with many columns, by conjugate gradients on all columns of y at once."""
    transposed = x.T.tocsr()
    residual = transposed @ y
    w, direction, square = np.zeros_like(residual), residual.copy(), (residual**2).sum(axis=0)
    for _ in range(steps):
        image = transposed @ (x @ direction) + np.float32(penalty) * direction
        step = square / np.maximum((direction * image).sum(axis=0), 1e-12)
        w += step * direction
        residual -= step * image
        before, square = square, (residual**2).sum(axis=0)
        direction = residual + square / np.maximum(before, 1e-12) * direction
    return w
