// What is shown as a file: the page itself with the answers it needs, and one row or column as a table.

import { answered, packedAnswers, Refused } from '../ask.js';

const TILE_PIXELS = 256; // a file holds whole tiles

/** The answers that a page in a file needs to show `panes`, each { view, places }: a view as it is drawn, and the tiles
 * [{ z, r, c }] of its map. What is cheap is asked for if it is not known; of the head sheet, what is known is taken. */
export async function shownAnswers(request, panes) {
  const kept = new Map();
  const keep = (what, about, answer) => kept.set(`${what} ${JSON.stringify(about)}`, [what, about, answer]);
  const ask = async (what, about) => {
    const answer = await request(what, about).catch(whyNot);
    keep(what, about, answer);
    return answer;
  };
  const { readings, chosen } = await request('readings', {});
  keep('readings', {}, { chosen, readings: readings.map((reading) => ({ ...reading, again: false })) });
  for (const pane of panes) await keepPane(pane, ask, keep);
  return packedAnswers([...kept.values()]);
}

/** The reason why there is no answer, in its place. */
function whyNot(error) {
  if (error instanceof Refused) return { error: error.message };
  throw error;
}

async function keepPane({ view, places }, ask, keep) {
  const { about, by, row, column, layer, part, reading, how, without } = view,
    { reading: number, part: name } = about,
    at = by === 'row' ? row : column;
  const where = { reading: number, part: name, layer: about.layer };
  await pagesOf(ask, 'line', { ...about, by, at, without }, ({ to, length }) => to < length && to);
  for (const side of part.crosses || layer.queries !== layer.keys ? ['keys', 'queries'] : ['keys'])
    await pagesOf(ask, 'names', { ...where, side }, ({ to, count, names }) => names.length > 0 && to < count && to);
  await ask('trust', where);
  if (reading.picture) await ask('picture', { reading: number });
  await ask('pair', { reading: number, part: name, row, column });
  await ask('heaviest', { reading: number, part: name, by, at });
  for (const place of [{ z: 0, r: 0, c: 0 }, ...places]) await keepTile({ ...about, how, ...place }, ask, keep);
  const ofPart = (what, asked) => what === 'sheet' && asked.reading === number && asked.part === name;
  for (const one of answered(ofPart)) keep(...one);
}

/** An answer that comes in pages, from 0 on; `next` tells where the next one begins, or false. */
async function pagesOf(ask, what, about, next) {
  for (let from = 0; from !== false;) from = next(await ask(what, { ...about, from }));
}

/** A whole tile: made of the strips that have come, or else asked for. */
async function keepTile(tile, ask, keep) {
  const whole = { ...tile, from: 0, to: TILE_PIXELS };
  const strips = answered((what, about) => what === 'tile' && sameTile(about, tile)).sort(
    ([, a], [, b]) => a.from - b.from || b.to - a.to,
  );
  const values = new Float32Array(TILE_PIXELS * TILE_PIXELS),
    rings = [];
  let to = 0;
  for (const [, about, told] of strips) {
    if (about.from !== to) continue;
    values.set(told.values, about.from * TILE_PIXELS);
    rings.push(...(told.rings ?? []));
    to = about.to;
  }
  if (to === TILE_PIXELS) keep('tile', whole, { z: tile.z, r: tile.r, c: tile.c, from: 0, to, rings, values });
  else await ask('tile', whole);
}

function sameTile(about, tile) {
  return Object.entries(tile).every(([key, value]) => String(about[key]) === String(value));
}

/** A row or a column as a table: index, token and weight of each item (or what else is `measured`), in full precision.
 * Every token is quoted and none is altered, not even one that a spreadsheet would take for a formula. */
export function csvOfLine(names, values, measured = 'weight') {
  const lines = Array.from(values, (weight, at) => `${at},"${(names[at] ?? '').replaceAll('"', '""')}",${weight}`);
  return `index,token,${measured}\r\n${lines.map((line) => `${line}\r\n`).join('')}`;
}

/** A file's size in words. */
export function fileSize(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
