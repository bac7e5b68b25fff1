// The small model's forward pass, as clearhead/model/block.py and model.py define it, on the same 8-bit weights.

import { dataOf, dequantized } from './data.js';
import { makeTokenizer } from './tokenizer.js';

const EPSILON = 1e-6;
const ROTARY_BASE = 10000;
const MATRICES = ['query', 'key', 'value', 'output', 'up', 'down'];
let small = null;

/** The small model: { tokenizer, layers, heads, context, embedding }. */
export async function smallModel() {
  small ??= readModel(await dataOf('model'));
  return small;
}

function readModel({ merges, heads, context, tensors }) {
  const matrix = (name) => dequantized(tensors[name], tensors[`${name}.scales`]);
  const layers = [];
  while (tensors[`${layers.length}.query`]) {
    const n = layers.length;
    layers.push(Object.fromEntries(MATRICES.map((name) => [name, matrix(`${n}.${name}`)])));
  }
  return { tokenizer: makeTokenizer(merges), heads, context, layers, embedding: matrix('embedding') };
}

/** Every layer's heads, each { q, k, v, lse } with rows of `dim` numbers, and the logits after the last token.
 * Heads in `without`, as "layer.head", add nothing. */
export function forwardPass({ layers, heads, embedding }, tokens, without = []) {
  const n = tokens.length,
    width = embedding.width;
  let x = new Float32Array(n * width);
  tokens.forEach((token, i) => x.set(embedding.values.subarray(token * width, (token + 1) * width), i * width));
  const passes = layers.map((layer, number) => {
    const normed = normedRows(x, width);
    const [q, k, v] = ['query', 'key', 'value'].map((name) => split(product(normed, layer[name]), n, heads));
    const dim = width / heads,
      scale = 1 / Math.sqrt(dim);
    for (const one of [...q, ...k]) rotate(one, dim);
    const attended = new Float32Array(n * width);
    const found = q.map((own, head) => {
      const lse = attendHead({ q: own, k: k[head], v: v[head], dim, scale }, (i, y) => {
        if (!without.includes(`${number}.${head}`)) attended.set(y, i * width + head * dim);
      });
      return { q: own, k: k[head], v: v[head], lse };
    });
    x = sumOfRows(x, product(attended, layer.output));
    x = sumOfRows(x, product(gelu(product(normedRows(x, width), layer.up)), layer.down));
    return { heads: found, dim, scale };
  });
  return { passes, logits: product(normedRows(x.subarray((n - 1) * width), width), embedding) };
}

/** Causal attention of one head: calls `take(i, output)` for each row, and returns the rows' log-sum-exps. */
function attendHead({ q, k, v, dim, scale }, take) {
  const n = q.length / dim,
    lse = new Float64Array(n),
    s = new Float64Array(n);
  for (let i = 0; i < n; i += 1) {
    let largest = -Infinity;
    for (let j = 0; j <= i; j += 1) {
      s[j] = scale * rowDot(q, i * dim, k, j * dim, dim);
      if (s[j] > largest) largest = s[j];
    }
    let total = 0;
    const y = new Float64Array(dim);
    for (let j = 0; j <= i; j += 1) {
      const e = Math.exp(s[j] - largest);
      total += e;
      for (let c = 0; c < dim; c += 1) y[c] += e * v[j * dim + c];
    }
    lse[i] = largest + Math.log(total);
    take(
      i,
      y.map((value) => value / total),
    );
  }
  return lse;
}

/** The dot product of a row of one array and a row of another. */
export function rowDot(a, from, b, other, dim) {
  let total = 0;
  for (let c = 0; c < dim; c += 1) total += a[from + c] * b[other + c];
  return total;
}

/** Rows times a matrix, which is kept with a row for each column. */
function product(x, { rows, width, values }) {
  const n = x.length / width,
    found = new Float32Array(n * rows);
  for (let i = 0; i < n; i += 1)
    for (let o = 0; o < rows; o += 1) found[i * rows + o] = rowDot(x, i * width, values, o * width, width);
  return found;
}

/** Rows (n, heads · dim) as (n, dim) for each head. */
function split(x, n, heads) {
  const dim = x.length / n / heads;
  return Array.from({ length: heads }, (_, head) => {
    const own = new Float32Array(n * dim);
    for (let i = 0; i < n; i += 1) own.set(x.subarray((i * heads + head) * dim, (i * heads + head + 1) * dim), i * dim);
    return own;
  });
}

/** Rotary positions: dims c and c + dim/2 of row i rotated by i · base^(−2c/dim). */
function rotate(x, dim) {
  const half = dim / 2;
  for (let i = 0; i * dim < x.length; i += 1)
    for (let c = 0, at = i * dim; c < half; c += 1, at += 1) {
      const angle = i * ROTARY_BASE ** ((-2 * c) / dim),
        [cosine, sine] = [Math.cos(angle), Math.sin(angle)],
        [a, b] = [x[at], x[at + half]];
      x[at] = a * cosine - b * sine;
      x[at + half] = a * sine + b * cosine;
    }
}

function normedRows(x, width) {
  const found = new Float32Array(x.length);
  for (let from = 0; from < x.length; from += width) {
    const size = Math.sqrt(rowDot(x, from, x, from, width) / width + EPSILON);
    for (let c = from; c < from + width; c += 1) found[c] = x[c] / size;
  }
  return found;
}

function gelu(x) {
  return x.map((a) => 0.5 * a * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (a + 0.044715 * a * a * a))));
}

function sumOfRows(a, b) {
  return a.map((value, at) => value + b[at]);
}
