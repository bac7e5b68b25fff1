// The plane through the origin nearest to some vectors, as clearhead/view/sentences.py finds it.

const PLACES = 100;
const NOTHING = 1e-12; // of the largest square: below it lies only rounding
const SWEEPS = 60; // of rotations, of which a dozen items need fewer than ten

/** Vectors (n, d) as coordinates (n, 2), rounded, and the share of their squared lengths that is kept. */
export function projectedToPlane(x) {
  const { values, vectors } = eigen(x.map((a) => x.map((b) => plainDot(a, b))));
  const order = [...values.keys()].sort((a, b) => values[b] - values[a]);
  const isFlat = (n) => n === undefined || values[n] <= NOTHING * values[order[0]];
  const columns = [0, 1].map((n) => (isFlat(order[n]) ? null : coordinates(x, vectors, order[n])));
  const total = values.reduce((sum, value) => sum + Math.max(0, value), 0),
    two = order.slice(0, 2).reduce((sum, n) => sum + Math.max(0, values[n]), 0);
  return {
    plane: x.map((_, i) => columns.map((column) => (column ? toPlaces(column[i]) : 0))),
    kept: total ? two / total : 1,
  };
}

/** Coordinates along the axis of one eigenvector of the dot products; the axis's largest number is positive. */
function coordinates(x, vectors, n) {
  const axis = x[0].map((_, c) => x.reduce((sum, row, i) => sum + vectors[i][n] * row[c], 0));
  const length = Math.sqrt(plainDot(axis, axis));
  const largest = axis.reduce((best, value) => (Math.abs(value) > Math.abs(best) ? value : best), 0);
  return x.map((row) => (Math.sign(largest) * plainDot(row, axis)) / length);
}

/** Two decimals, and never −0. */
function toPlaces(value) {
  return Math.round(value * PLACES) / PLACES + 0;
}

function plainDot(a, b) {
  let total = 0;
  for (let c = 0; c < a.length; c += 1) total += a[c] * b[c];
  return total;
}

/** Eigenvalues and eigenvectors, as columns, of a symmetric matrix, by Jacobi's rotations. */
function eigen(matrix) {
  const a = matrix.map((row) => [...row]),
    n = a.length;
  const v = a.map((_, i) => a.map((_, j) => (i === j ? 1 : 0)));
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    let turned = false;
    for (let p = 0; p < n; p += 1)
      for (let q = p + 1; q < n; q += 1) {
        if (Math.abs(a[p][q]) <= 1e-18 * Math.sqrt(Math.abs(a[p][p] * a[q][q]))) continue;
        turned = true;
        const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1)),
          c = 1 / Math.sqrt(t * t + 1);
        for (let k = 0; k < n; k += 1) [a[k][p], a[k][q]] = rotatedPair(a[k][p], a[k][q], c, t * c);
        for (let k = 0; k < n; k += 1) [a[p][k], a[q][k]] = rotatedPair(a[p][k], a[q][k], c, t * c);
        for (let k = 0; k < n; k += 1) [v[k][p], v[k][q]] = rotatedPair(v[k][p], v[k][q], c, t * c);
      }
    if (!turned) break;
  }
  return { values: a.map((row, i) => row[i]), vectors: v };
}

function rotatedPair(x, y, c, s) {
  return [c * x - s * y, s * x + c * y];
}
