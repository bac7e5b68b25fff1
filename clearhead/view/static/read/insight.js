// Which tiles a map needs: of which depth, and where.

import { deepest, TILE } from './tiles.js';

const MOST_WANTED_BYTES = 18 << 20;
const MOST_TRIED = 400; // tiles of a file

/** The depth at which two or more pixels of a tile make a CSS pixel each way, so that all are of about as many cells;
 * for sums, which must be of equally many, the depth at which none is smaller than a pixel of the screen. */
export function depthFor(port, frame, layer, how) {
  const ratio = Math.log2(window.devicePixelRatio || 1);
  const cellsAcross = Math.log2(1 / Math.max(port.sx, port.sy));
  const last = deepest(layer);
  const fine = Math.floor(cellsAcross - Math.max(1, ratio) + 1e-6);
  const up = how === 'sum' ? Math.ceil(cellsAcross - ratio - 1e-6) : fine;
  let depth = Math.max(0, Math.min(last, last - up));
  const bytes = (places) => places.length * Math.min(TILE, layer.queries) * TILE * 4;
  while (depth && bytes(tilesInSight(depth, port, frame, layer)) > MOST_WANTED_BYTES) depth -= 1;
  return depth;
}

/** Tiles of a depth that the frame shows. */
export function tilesInSight(z, port, frame, layer) {
  const span = TILE << (deepest(layer) - z);
  const bottom = Math.min(layer.queries, port.y + frame.height / port.sy - 1e-6),
    right = Math.min(layer.keys, port.x + frame.width / port.sx - 1e-6);
  const found = [];
  for (let r = Math.floor(port.y / span); r * span < bottom; r++) {
    for (let c = Math.floor(port.x / span); c * span < right; c++) found.push({ z, r, c });
  }
  return found;
}

/** All tiles in sight that a page in a file may have. */
export function tilesOfAnyDepth(port, frame, layer) {
  const found = [];
  for (let z = 0; z <= deepest(layer) && found.length < MOST_TRIED; z++) {
    found.push(...tilesInSight(z, port, frame, layer));
  }
  return found;
}

/** Tiles with some single cells. */
export function tilesOfCells({ rows, columns }, layer) {
  const z = deepest(layer);
  const tilesOf = (list) => [...new Set(list.map((index) => Math.floor(index / TILE)))];
  return tilesOf(rows).flatMap((r) => tilesOf(columns).map((c) => ({ z, r, c })));
}
