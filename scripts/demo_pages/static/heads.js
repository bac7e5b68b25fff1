// A head's weights from its queries, keys and log-sum-exps, computed where they are looked at.

import { rowDot } from './model.js';

/** Heads, each { q, k, lse, dim, scale, lengths }, joined as one matrix; if `valued`, weights are taken times the
 * lengths of their values. */
export function makeSelected(heads, join, valued) {
  const n = heads[0].lse.length;

  /** What query i gives the keys from `start` to `stop`, as one row. */
  function cells(i, start = 0, stop = n) {
    const found = new Float32Array(stop - start),
      end = Math.min(stop, i + 1);
    for (const { q, k, lse, dim, scale, lengths } of heads)
      for (let j = start; j < end; j += 1) {
        const weight = Math.exp(scale * rowDot(q, i * dim, k, j * dim, dim) - lse[i]) * (valued ? lengths[j] : 1);
        if (join === 'max') found[j - start] = Math.max(found[j - start], weight);
        else found[j - start] += weight / heads.length;
      }
    return found;
  }

  /** What each query gives key j. */
  function column(j) {
    const found = new Float32Array(n);
    for (let i = j; i < n; i += 1) [found[i]] = cells(i, j, j + 1);
    return found;
  }

  return { n, cells, column };
}

/** The length of each value of a head. */
export function valueLengths(v, dim) {
  return Float64Array.from({ length: v.length / dim }, (_, j) => Math.sqrt(rowDot(v, j * dim, v, j * dim, dim)));
}
