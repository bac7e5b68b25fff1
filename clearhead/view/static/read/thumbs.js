// Thumbnails of heads: where each stands on the sheet, and one canvas with all of them.

import { html } from '../dom.js';
import { floorOfPixels, paletteOf, stepOf } from './colours.js';
import { seesAny } from './sight.js';

const SIDE = 28; // pixels of a thumbnail
const GAP = 2; // between them, as often as they are enlarged
const GROUP_GAP = 6; // between heads of two key heads
const MOST_ACROSS = 900; // a sheet narrower than this has larger thumbnails

/** Heads down and layers across; heads that share a key head stand together. */
export function placesByLayer(layers) {
  const numbers = [...new Set(layers.flatMap(({ heads }) => heads))].sort((a, b) => a - b);
  const groups = sharedKeyHeads(layers, numbers),
    scale = scaleFor(layers.length),
    pitch = (SIDE + GAP) * scale;
  const tops = numbers.map((_, row) => row * pitch + GROUP_GAP * groupBefore(groups, row));
  const cells = layers.flatMap((layer, column) =>
    layer.heads.map((head, at) => ({
      layer: layer.number,
      head,
      keyHead: layer.key_heads[at],
      row: numbers.indexOf(head),
      column,
      x: column * pitch,
      y: tops[numbers.indexOf(head)],
    })),
  );
  return {
    cells,
    groups: groups.map(({ key, first, count }) => ({ key, heads: numbers.slice(first, first + count) })),
    shared: groups.some(({ key }) => key !== null),
    rows: numbers.length,
    columns: layers.length,
    ...sizes(scale, layers.length * pitch - GAP * scale, tops.at(-1) + SIDE * scale),
  };
}

/** Heads in reading order, as many across as fit. */
export function placesInOrder(heads, room) {
  const scale = scaleFor(Math.ceil(Math.sqrt(heads.length * 3))),
    pitch = (SIDE + GAP) * scale,
    columns = Math.max(1, Math.min(heads.length, Math.floor((room + GAP * scale) / pitch)));
  const rows = Math.ceil(heads.length / columns);
  const cells = heads.map((head, at) => ({
    ...head,
    row: Math.floor(at / columns),
    column: at % columns,
    x: (at % columns) * pitch,
    y: Math.floor(at / columns) * pitch,
  }));
  const [width, height] = [columns * pitch - GAP * scale, rows * pitch - GAP * scale];
  return { cells, groups: [], shared: false, rows, columns, ...sizes(scale, width, height) };
}

function sizes(scale, width, height) {
  return { side: SIDE * scale, gap: GAP * scale, width: Math.max(1, width), height: Math.max(1, height) };
}

function scaleFor(across) {
  return Math.max(1, Math.min(3, Math.floor(MOST_ACROSS / (across * (SIDE + GAP)))));
}

/** Runs of heads with one key head, if all layers agree on them. */
function sharedKeyHeads(layers, numbers) {
  const keyOf = new Map();
  for (const { heads, key_heads: keys } of layers) {
    for (const [at, head] of heads.entries()) {
      if ((keyOf.get(head) ?? keys[at]) !== keys[at]) return [{ key: null, first: 0, count: numbers.length }];
      keyOf.set(head, keys[at]);
    }
  }
  const alone = new Set(keyOf.values()).size === numbers.length;
  const groups = [];
  numbers.forEach((head, at) => {
    const key = alone ? null : keyOf.get(head);
    if (groups.at(-1)?.key === key) groups.at(-1).count += 1;
    else groups.push({ key, first: at, count: 1 });
  });
  return groups;
}

function groupBefore(groups, row) {
  return groups.findLastIndex(({ first }) => first <= row);
}

/** A canvas of thumbnails, on which heads that are known later are added to those drawn before. */
export function makeThumbs() {
  const canvas = html.canvas({ 'aria-hidden': 'true' });
  let palette = null,
    sign = '',
    drawn = []; // the head at each place

  /** Draw all places; heads that are not `known` are outlined, and no picture stays where its head is another one, as
   * of another text. Returns the scale of the colours, which end at 100 %. */
  function update(places, known, layers) {
    palette = paletteOf(canvas, palette);
    const heads = places.cells.map((cell) => known.get(`${cell.layer}.${cell.head}`));
    const values = joinedPixels(heads),
      share = 1 / Math.max(...layers.map(({ keys }) => keys)),
      scale = { floor: floorOfPixels(values, 1, share), top: 1 };
    const order = places.cells.map(({ layer, head }) => `${layer}.${head}`);
    const next = [palette.sign, scale.floor, places.width, places.height, order].join();
    if (next !== sign || drawn.some((head, at) => head && head !== heads[at])) clear(places);
    sign = next;
    const context = canvas.getContext('2d');
    places.cells.forEach((cell, at) => {
      if (heads[at] && !drawn[at]) {
        const layer = layers.find(({ number }) => number === cell.layer);
        context.putImageData(thumbnailOf(heads[at], layer, places.side, scale, palette.pixels), cell.x, cell.y);
        drawn[at] = heads[at];
      }
    });
    return scale;
  }

  function clear({ cells, side, width, height }) {
    canvas.width = width; // also empties it
    canvas.height = height;
    drawn = [];
    const context = canvas.getContext('2d');
    context.strokeStyle = palette.line;
    for (const { x, y } of cells) context.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
  }

  return { canvas, update };
}

function joinedPixels(heads) {
  const all = new Float32Array(heads.reduce((sum, head) => sum + (head?.pixels.length ?? 0), 0));
  let at = 0;
  for (const head of heads) {
    if (!head) continue;
    all.set(head.pixels, at);
    at += head.pixels.length;
  }
  return all;
}

/** One head's picture, enlarged without smoothing; pixels of which no pair is seen stay open. */
function thumbnailOf({ pixels, height, width }, layer, side, { floor, top }, colours) {
  const image = new ImageData(side, side);
  const made = new Uint32Array(image.data.buffer);
  const small = Uint32Array.from(pixels, (weight, at) => {
    const rows = covered(Math.floor(at / width), height, layer.queries),
      columns = covered(at % width, width, layer.keys);
    return weight > 0 || seesAny(layer, rows, columns) ? colours[stepOf(weight, floor, top)] : 0;
  });
  for (let y = 0; y < side; y += 1) {
    const row = Math.floor((y * height) / side) * width;
    for (let x = 0; x < side; x += 1) made[y * side + x] = small[row + Math.floor((x * width) / side)];
  }
  return image;
}

/** The cells that a pixel covers, as [first, end). */
function covered(pixel, pixels, cells) {
  return [Math.floor((pixel * cells) / pixels), Math.ceil(((pixel + 1) * cells) / pixels)];
}
