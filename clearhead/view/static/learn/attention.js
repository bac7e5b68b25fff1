// The definition, for values needed at once: scores, softmax, weighted sum (clearhead/definition/textbook.py), and the
// altered formulas of `explain --what-if`. Tests compare every number with Python's.

const ROUNDING = 1e-14;
const SMALLEST = 2.2250738585072014e-308; // of a float64 with all its digits

/** The dot product of two vectors; 0 where only rounding is left, as for decimal vectors at right angles. */
export function dot(a, b) {
  let total = 0,
    size = 0;
  for (let k = 0; k < a.length; k++) {
    total += a[k] * b[k];
    size += Math.abs(a[k] * b[k]);
  }
  return Math.abs(total) <= ROUNDING * size ? 0 : total;
}

/** Every score, (n, n): q_i · k_j times the scale. */
function scores(q, k, scale) {
  return q.map((query) => k.map((key) => dot(query, key) * scale));
}

/** The keys each query sees: itself and the earlier ones, or the last `window` of these. */
function causal(n, window) {
  const reach = window ?? n;
  return Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => j <= i && j > i - reach));
}

/** A row's exponentials, the shift subtracted from each score, the exponentials' sum and the weights. */
function softmax(row, seen) {
  const known = row.filter((_, j) => seen[j]);
  const largest = Math.max(...known);
  const by = (shift) => row.map((score, j) => (seen[j] ? Math.exp(score - shift) : 0));
  const shifted = by(largest),
    over = sum(shifted);
  const weights = shifted.map((e) => e / over);
  const plain = by(0),
    total = sum(plain);
  const lost = plain.some((e, j) => e < SMALLEST && weights[j] >= SMALLEST);
  if (Number.isFinite(total) && !lost) return { exponentials: plain, shift: 0, total, weights };
  return { exponentials: shifted, shift: largest, total: over, weights };
}

/** Rows of weights times values, over the visible keys. */
function weightedSum(weights, values, seen) {
  return weights.map((row, i) =>
    values[0].map((_, c) => row.reduce((total, weight, j) => total + (seen[i][j] ? weight * values[j][c] : 0), 0)),
  );
}

/** All stages of one problem: { q, k, v, scale, window } and the formula's name. */
export function attend({ q, k, v, scale = 1, window = null }, formula = 'right') {
  const n = q.length,
    seen = formula === 'no-mask' ? full(n) : causal(n, window);
  const asked = formula === 'no-scale' ? 1 : formula === 'divide-by-d' ? 1 / q[0].length : scale;
  const found = formula === 'keys=values' && v[0].length === q[0].length ? v : k;
  const s = scores(q, found, asked);
  const rows = s.map((row, i) => {
    const whole = formula === 'mask-after-softmax' ? softmax(row, full(n)[i]) : softmax(row, seen[i]);
    return { scores: row, ...whole, weights: altered(formula, row, seen[i], whole.weights) };
  });
  const values = formula === 'values=keys' ? k : v;
  const weights = rows.map((row) => row.weights);
  const outputs =
    formula === 'no-values'
      ? weights.map((row, i) => row.filter((_, j) => seen[i][j]))
      : weightedSum(weights, values, seen);
  return { n, seen, rows, outputs, values, found, scale: asked };
}

/** A row of weights under another formula. */
function altered(formula, row, seen, weights) {
  const visible = row.map((score, j) => (seen[j] ? score : 0));
  if (formula === 'no-softmax') return visible;
  if (formula === 'mask-after-softmax') return weights.map((weight, j) => (seen[j] ? weight : 0));
  if (formula !== 'scores-as-weights') return weights;
  const total = sum(visible),
    size = sum(visible.map(Math.abs));
  return Math.abs(total) <= 1e-12 * size ? visible.map(() => 0) : visible.map((score) => score / total);
}

function full(n) {
  return Array.from({ length: n }, () => Array(n).fill(true));
}

export function sum(numbers) {
  return numbers.reduce((a, b) => a + b, 0);
}

/** Vectors times a matrix. */
export function times(x, matrix) {
  return x.map((row) => matrix[0].map((_, c) => row.reduce((total, a, r) => total + a * matrix[r][c], 0)));
}

/** Rotary positions: dims c and c + d/2 of item j rotated by j · 10000^(−pair / pairs); an odd last dim stays. */
export function turned(x) {
  const half = Math.floor(x[0].length / 2);
  return x.map((row, j) => {
    const made = [...row];
    for (let c = 0; c < half; c++) {
      const angle = j * 10000 ** (-c / Math.max(half, 1));
      const a = row[c],
        b = row[half + c];
      made[c] = a * Math.cos(angle) - b * Math.sin(angle);
      made[half + c] = a * Math.sin(angle) + b * Math.cos(angle);
    }
    return made;
  });
}
