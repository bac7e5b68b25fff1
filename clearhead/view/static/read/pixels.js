// The pixels of a map: tiles pooled to the pixels of the screen, so that none of their cells is skipped, and coloured.

import { seenBy } from './sight.js';
import { stepBounds, STEPS } from './colours.js';
import { deepest, TILE } from './tiles.js';

/** Pool what there is of the wanted depth, over coarser and finer tiles where that is missing. Of each pixel of the
 * screen: `values`, and in `depths` the depth it was pooled from plus one, or 0 if nothing is known. */
export function pooled(tiles, { port, layer, frame, size, depth, how }) {
  const { width, height } = size; // in pixels of the screen
  const count = width * height;
  const field = { width, height, values: new Float32Array(count), depths: new Int8Array(count), how, depth };
  if (how === 'mean') field.shares = new Float32Array(count);
  const edges = new Map();
  const edgesAt = (cells) => {
    if (!edges.has(cells)) {
      const across = edgesOf(port.x, (port.sx * width) / frame.width, width, cells, layer.keys);
      const down = edgesOf(port.y, (port.sy * height) / frame.height, height, cells, layer.queries);
      edges.set(cells, { across, down });
    }
    return edges.get(cells);
  };
  for (const tile of inOrder([...tiles], depth, how)) pourTile(field, tile, edgesAt(tile.cells), layer);
  const seen = seenPixels(edgesAt(1), layer);
  for (let y = 0; y < height; y++) {
    field.depths.fill(0, y * width, y * width + seen[2 * y]);
    field.depths.fill(0, y * width + seen[2 * y + 1], (y + 1) * width);
  }
  return { ...field, edgesAt, seen };
}

/** Of each row of pixels, the first one with a cell that is seen, and the end of those. */
function seenPixels({ across, down }, layer) {
  const width = across.length - 1,
    height = down.length - 1;
  const found = new Int32Array(2 * height);
  for (let y = 0; y < height; y++) {
    const last = Math.min(layer.queries, Math.max(down[y + 1], down[y] + 1)) - 1;
    const first = seenBy(layer, down[y])[0],
      end = seenBy(layer, last)[1];
    let from = 0;
    while (from < width && Math.max(across[from + 1], across[from] + 1) <= first) from += 1;
    let to = from;
    while (to < width && across[to] < end) to += 1;
    found.set([from, to], 2 * y);
  }
  return found;
}

/** Worst first: coarse ones, then those finer than wanted, then the wanted. Sums over different areas do not compare. */
function inOrder(tiles, depth, how) {
  const rank = ({ z }) => (z === depth ? 99 : z < depth ? z : 98 - z);
  const usable = tiles.filter((tile) => tile.done && (how !== 'sum' || tile.z === depth));
  return usable.sort((a, b) => rank(a) - rank(b));
}

/** Where pixels of the screen begin, in pixels of tiles: pixel d is made of those from edges[d] to edges[d + 1], and of
 * at least one. */
function edgesOf(start, scale, count, cells, length) {
  const edges = new Int32Array(count + 1);
  for (let d = 0; d <= count; d++) edges[d] = Math.floor((start + d / scale) / cells + 1e-7);
  edges[count] = Math.max(edges[count], Math.ceil((start + count / scale) / cells - 1e-3));
  edges[count] = Math.min(edges[count], Math.ceil(length / cells));
  return edges;
}

/** The pixels of the screen that a tile touches: for each its place, and its first and end pixel within the tile. */
function touchedPixels(edges, first, length, whole) {
  const found = [];
  for (let d = 0; d + 1 < edges.length; d++) {
    const from = edges[d],
      to = Math.max(edges[d + 1], from + 1);
    const a = Math.max(from, first),
      b = Math.min(to, first + length);
    if (a < b && !(whole && (a > from || b < to))) found.push(d, a - first, b - first);
  }
  return Int32Array.from(found);
}

/** Pool one tile into the field. A tile finer than wanted serves only pixels that lie whole in it. */
function pourTile(field, tile, { across, down }, layer) {
  const { values, depths, shares, width, how } = field;
  const whole = tile.z > field.depth;
  const xs = touchedPixels(across, tile.c * TILE, TILE, whole),
    ys = touchedPixels(down, tile.r * TILE, tile.done, whole);
  const mark = tile.z + 1,
    given = tile.values;
  const inRow = (y) => Math.min(tile.cells, layer.queries - (tile.r * TILE + y) * tile.cells),
    inColumn = (x) => Math.min(tile.cells, layer.keys - (tile.c * TILE + x) * tile.cells);
  for (let v = 0; v < ys.length; v += 3) {
    for (let u = 0; u < xs.length; u += 3) {
      const at = ys[v] * width + xs[u];
      let value = 0,
        share = 0;
      for (let y = ys[v + 1]; y < ys[v + 2]; y++) {
        for (let x = xs[u + 1]; x < xs[u + 2]; x++) {
          const one = given[y * TILE + x];
          if (how === 'max') value = one > value ? one : value;
          else if (how === 'sum') value += one;
          else {
            const cells = inRow(y) * inColumn(x);
            value += one * cells;
            share += cells;
          }
        }
      }
      const before = depths[at] === mark;
      depths[at] = mark;
      if (how === 'max') values[at] = before ? Math.max(values[at], value) : value;
      else if (how === 'sum') values[at] = before ? values[at] + value : value;
      else {
        const total = before ? values[at] * shares[at] + value : value;
        shares[at] = before ? shares[at] + share : share;
        values[at] = shares[at] ? total / shares[at] : 0;
      }
    }
  }
}

/** How many cells a pixel covers, each way, least and most; of the coarsest tiles in the field. */
export function cellsAPixel({ depths, edgesAt }, layer) {
  let least = 127;
  for (const depth of depths) if (depth && depth < least) least = depth;
  if (least === 127) return null;
  const cells = 1 << (deepest(layer) - least + 1);
  const { across, down } = edgesAt(cells);
  return { across: stepsBetween(across, cells), down: stepsBetween(down, cells), depth: least - 1 };
}

/** The least and most that lies between edges, the last one apart, which the end of the matrix may cut. */
function stepsBetween(edges, cells) {
  let least = Infinity,
    most = 1;
  for (let d = 0; d + 2 < edges.length; d++) {
    const step = Math.max(1, edges[d + 1] - edges[d]);
    least = Math.min(least, step);
    most = Math.max(most, step);
  }
  return [Math.min(least, most) * cells, most * cells];
}

/** Colour a field: unknown is paper, what is not seen is left open for the hatching behind. */
export function coloured(field, { layer, palette, floor, top }) {
  const { width, height, values, depths, seen } = field;
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer),
    bits = new Uint32Array(values.buffer);
  const bounds = stepBounds(floor, top),
    table = stepTable(bounds);
  for (let y = 0; y < height; y++) {
    for (let at = y * width + seen[2 * y]; at < y * width + seen[2 * y + 1]; at++) {
      if (!depths[at]) pixels[at] = palette.empty;
      else if (bits[at] || !layer.sees.other) {
        let step = table[bits[at] >>> 16];
        if (step < STEPS && values[at] >= bounds[step + 1]) step += 1;
        pixels[at] = palette.pixels[step];
      }
    }
  }
  return image;
}

/** The step of the least float with the given upper half of bits: one part in 128 wide, narrower than a step. */
function stepTable(bounds) {
  const table = new Uint8Array(1 << 16);
  const value = new Float32Array(1),
    word = new Uint32Array(value.buffer);
  let step = 0;
  for (let upper = 0; upper < 0x7f80; upper++) {
    word[0] = upper << 16;
    while (step < STEPS && value[0] >= bounds[step + 1]) step += 1;
    table[upper] = step;
  }
  return table.fill(STEPS, 0x7f80, 0x8000);
}
