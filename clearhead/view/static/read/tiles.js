// A store of map tiles, 256 × 256 pixels each: asked for in strips, cancelled when no longer wanted, forgotten in order
// of use. A pixel of depth z covers 2^(deepest − z) cells each way.

import { countSeen, seesAny } from './sight.js';

export const TILE = 256;
const MOST_TILE_BYTES = 24 << 20;
const CELLS_A_SECOND = 1.5e9; // of one head
const SLOWER = 10; // times as long per head where weights are joined or weighed cell by cell
const STRIP_SECONDS = 0.1;
const MOST_RUNNING = 4;
const NONE = new Float32Array(0);

/** The depth at which a pixel is one cell. */
export function deepest({ queries, keys }) {
  return Math.max(0, Math.ceil(Math.log2(Math.max(queries, keys) / TILE)));
}

/** `arrived()` is called whenever strips have come, failed or been given up. */
export function makeTiles({ request, alone, arrived }) {
  let source = null; // { about, how, layer, name }
  let wanted = [];
  let halted = false;
  let error = null;
  const held = new Map(); // least recently used first
  const running = new Map(); // tile → { stop, seconds }

  /** Show another head, or pool in another way: tiles of the one before are dropped. */
  function use(about, how, layer) {
    const name = JSON.stringify([about, how]);
    if (source?.name === name) return;
    abandon(() => true);
    held.clear();
    source = { about, how, layer, name };
    wanted = [];
    halted = false;
    error = null;
  }

  /** Ask for tiles, most urgent first; what is not among them is no longer asked for. */
  function want(places) {
    const last = wanted.map((tile) => tile.key).join();
    wanted = [...new Set(places.filter(isSeen).map(tileAt))];
    if (halted && wanted.map((tile) => tile.key).join() !== last) halted = false;
    abandon((tile) => !wanted.includes(tile));
    forget();
    advance();
  }

  /** Rows and columns of cells that a tile covers. */
  function reach({ z, r, c }) {
    const span = TILE << (deepest(source.layer) - z);
    return [
      [r * span, Math.min(source.layer.queries, (r + 1) * span)],
      [c * span, Math.min(source.layer.keys, (c + 1) * span)],
    ];
  }

  function isSeen(place) {
    return seesAny(source.layer, ...reach(place));
  }

  function tileAt({ z, r, c }) {
    const key = `${z}/${r}/${c}`;
    const tile = held.get(key) ?? emptyTile(key, { z, r, c });
    held.delete(key);
    held.set(key, tile);
    return tile;
  }

  function emptyTile(key, place) {
    const [[top, bottom], columns] = reach(place);
    const cells = 1 << (deepest(source.layer) - place.z);
    const rows = Math.ceil((bottom - top) / cells);
    const whole = secondsFor([top, bottom], columns);
    let strip = TILE;
    if (!alone) while (strip > 1 && (whole * strip) / rows > STRIP_SECONDS) strip >>= 1;
    return { key, ...place, cells, rows, strip, done: 0, values: NONE, rings: [] };
  }

  /** How long Python is likely to take for so many rows and columns. */
  function secondsFor(rows, columns) {
    const { about, how, layer } = source;
    const heads = about.join === 'one' ? 1 : about.heads.length;
    const slow = about.measure === 'value' || (about.join === 'mean' && how === 'max') ? SLOWER : 1;
    return (countSeen(layer, rows, columns) * heads * slow) / CELLS_A_SECOND;
  }

  /** Start what fits beside what is running: one costly strip, or a few cheap ones. */
  function advance() {
    if (halted || error) return;
    for (const tile of wanted) {
      if (tile.done >= tile.rows || tile.missing || running.has(tile)) continue;
      const seconds = secondsFor(...stripReach(tile));
      const busy = [...running.values()].reduce((sum, one) => sum + one.seconds, 0);
      if (running.size && (running.size >= MOST_RUNNING || busy + seconds > STRIP_SECONDS)) return;
      read(tile, seconds);
    }
  }

  function stripReach(tile) {
    const [[top, bottom], columns] = reach(tile);
    const from = top + tile.done * tile.cells;
    return [[from, Math.min(bottom, from + tile.strip * tile.cells)], columns];
  }

  async function read(tile, seconds) {
    const stop = new AbortController();
    const from = tile.done,
      to = alone ? TILE : Math.min(tile.rows, from + tile.strip);
    const { z, r, c } = tile;
    const { about, how } = source;
    running.set(tile, { stop, seconds });
    try {
      const found = await request('tile', { ...about, how, z, r, c, from, to }, stop.signal);
      if (stop.signal.aborted) return;
      if (!tile.values.length) tile.values = new Float32Array(tile.rows * TILE);
      tile.values.set(found.values.subarray(0, tile.values.length - from * TILE), from * TILE);
      tile.rings.push(...(found.rings ?? []));
      tile.done = Math.min(tile.rows, to);
    } catch (reason) {
      if (stop.signal.aborted) return;
      if (alone) tile.missing = true;
      else error = reason;
    }
    running.delete(tile);
    advance();
    arrived();
  }

  function abandon(unwanted) {
    for (const [tile, { stop }] of running) {
      if (!unwanted(tile)) continue;
      running.delete(tile);
      stop.abort();
    }
  }

  function forget() {
    let bytes = 0;
    for (const tile of held.values()) bytes += tile.values.byteLength;
    for (const [key, tile] of held) {
      if (bytes <= MOST_TILE_BYTES) return;
      if (wanted.includes(tile)) continue;
      bytes -= tile.values.byteLength;
      held.delete(key);
    }
  }

  /** Strips of what is wanted: how many are there, of how many; what a file does not hold is not counted. */
  function progress() {
    const strips = (tile, rows) => Math.ceil(rows / (alone ? TILE : tile.strip));
    const sum = (count) => wanted.reduce((all, tile) => all + (tile.missing ? 0 : count(tile)), 0);
    return {
      done: sum((tile) => (tile.done >= tile.rows ? strips(tile, tile.rows) : Math.floor(tile.done / tile.strip))),
      of: sum((tile) => strips(tile, tile.rows)),
      halted,
      error,
    };
  }

  /** The weight of a cell, or undefined if its tile is not here. */
  function at(row, column) {
    const z = deepest(source.layer);
    const tile = held.get(`${z}/${Math.floor(row / TILE)}/${Math.floor(column / TILE)}`);
    return tile && row % TILE < tile.done ? tile.values[(row % TILE) * TILE + (column % TILE)] : undefined;
  }

  /** Where the wanted tiles are. */
  function places() {
    return wanted.map(({ z, r, c }) => ({ z, r, c }));
  }

  /** Give up what is being asked for; what has come stays. */
  function halt() {
    halted = true;
    abandon(() => true);
    arrived();
  }

  /** Go on, after a halt or an error. */
  function resume() {
    halted = false;
    error = null;
    advance();
    arrived();
  }

  return { use, want, progress, at, places, halt, resume, stop: () => abandon(() => true), all: () => held.values() };
}
