// Pictures of a matrix at any zoom, as clearhead/reading/tiles.py pools them, and the cells that stand out in them.

import { deepest, TILE } from './read/tiles.js';

const MOST_RINGS = 3; // cells that a strip points out

/** Rows `from` to `to` of a tile's pixels, each the pooled square of cells that it covers, with rings if they are
 * maxima. */
export function pooledStrip(of, how, { z, r, c, from, to }) {
  const { n } = of,
    cells = 1 << (deepest({ queries: n, keys: n }) - z);
  const [top, left] = [(r * TILE + from) * cells, c * TILE * cells],
    [bottom, right] = [Math.min(n, top + (to - from) * cells), Math.min(n, left + TILE * cells)];
  const pixels = new Float64Array((to - from) * TILE);
  for (let i = top; i < bottom; i += 1) {
    if (left > i) continue;
    const row = of.cells(i, left, right),
      at = Math.floor((i - top) / cells) * TILE;
    for (let j = 0; j < row.length; j += 1) {
      const pixel = at + Math.floor(j / cells);
      pixels[pixel] = how === 'max' ? Math.max(pixels[pixel], row[j]) : pixels[pixel] + row[j];
    }
  }
  if (how === 'mean') divideByArea(pixels, cells, bottom - top, right - left);
  const rings = how === 'max' ? ringsIn(of, pixels, cells, r * TILE + from, c * TILE) : [];
  return { z, r, c, from, to, rings, values: Float32Array.from(pixels) };
}

/** Divide each pixel by the cells that it covers, of which the matrix's edge cuts some. */
function divideByArea(pixels, cells, rows, columns) {
  for (let at = 0; at < pixels.length; at += 1) {
    const [y, x] = [Math.floor(at / TILE), at % TILE];
    const area = Math.min(cells, rows - y * cells) * Math.min(cells, columns - x * cells);
    if (pixels[at]) pixels[at] /= area;
  }
}

/** The cells most above an even share, the first key and the query's own aside: [row, column, weight, lift]. */
function ringsIn(of, pixels, cells, firstDown, firstAcross) {
  const { n } = of;
  const lift = pixels.map((weight, at) => {
    const [down, across] = [firstDown + Math.floor(at / TILE), firstAcross + (at % TILE)];
    return across === 0 || across === down ? 0 : Math.fround(weight) * Math.min(n, (down + 1) * cells);
  });
  const order = [...lift.keys()].filter((at) => lift[at] > 1).sort((a, b) => lift[b] - lift[a] || a - b);
  return order.slice(0, MOST_RINGS).map((at) => {
    const [top, left] = [(firstDown + Math.floor(at / TILE)) * cells, (firstAcross + (at % TILE)) * cells];
    let best = [top, left, -1];
    for (let i = top; i < Math.min(n, top + cells); i += 1)
      of.cells(i, left, Math.min(n, left + cells)).forEach((weight, j) => {
        if (weight > best[2]) best = [i, left + j, weight];
      });
    return [...best, best[2] * (best[0] + 1)];
  });
}
