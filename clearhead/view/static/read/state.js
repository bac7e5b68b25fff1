// What the reader has chosen: one or two panes as one frozen value, which the address holds and undo steps through.

/** A pane before anything is chosen; null is what the answers decide: the usual head, the last row, the heaviest. */
const FIRST_PANE = Object.freeze({
  reading: null,
  part: null,
  layer: null,
  heads: null,
  join: 'one',
  measure: 'weight',
  by: 'row',
  row: null,
  column: null,
  without: false,
  how: 'max',
  sheet: 'layer',
});
const FIXED = {
  join: ['one', 'mean', 'max'],
  measure: ['weight', 'value'],
  by: ['row', 'column'],
  how: ['max', 'sum', 'mean'],
  sheet: ['layer', 'rank'],
};
const WHOLE = ['reading', 'layer', 'row', 'column'];

export const FIRST = Object.freeze({ panes: Object.freeze([FIRST_PANE]), linked: true });

/** The part of an address that holds the differences from the initial state; names of the second pane end in 2. */
export function toAddress(state) {
  const told = new URLSearchParams();
  state.panes.forEach((pane, at) => {
    const mark = at ? '2' : '';
    if (at) told.set('panes', '2');
    for (const [key, value] of Object.entries(pane)) {
      const first = FIRST_PANE[key];
      if (value !== first && value !== null) told.set(key + mark, Array.isArray(value) ? value.join(' ') : value);
    }
  });
  if (!state.linked) told.set('linked', 'false');
  return told.toString();
}

/** The state in an address; what cannot be is left out. */
export function fromAddress(text) {
  const told = new URLSearchParams(text.replace(/^#/, ''));
  const panes = [paneIn(told, '')];
  if (told.get('panes') === '2') panes.push(paneIn(told, '2'));
  return Object.freeze({ panes: Object.freeze(panes), linked: told.get('linked') !== 'false' });
}

function paneIn(told, mark) {
  const pane = { ...FIRST_PANE };
  for (const [key, options] of Object.entries(FIXED)) {
    if (options.includes(told.get(key + mark))) pane[key] = told.get(key + mark);
  }
  for (const key of WHOLE) if (/^\d{1,9}$/.test(told.get(key + mark) ?? '')) pane[key] = Number(told.get(key + mark));
  if (/^\d{1,5}( \d{1,5})*$/.test(told.get(`heads${mark}`) ?? '')) {
    pane.heads = told.get(`heads${mark}`).split(' ').map(Number);
  }
  pane.part = told.get(`part${mark}`);
  pane.without = told.get(`without${mark}`) === 'true';
  return Object.freeze(pane);
}

/** A pane whose every choice exists in the readings: others are the nearest that do. */
export function soundPane(pane, { readings, chosen }) {
  const made = { ...pane };
  if (!readings[made.reading]) made.reading = chosen;
  const part = partOf(readings[made.reading], made.part),
    layer = layerOf(part, made.layer);
  made.part = part.name;
  made.layer = layer.number;
  made.heads = (made.heads ?? []).filter((head) => layer.heads.includes(head));
  if (!made.heads.length) made.heads = [layer.heads[0]];
  if (made.join === 'one') made.heads = made.heads.slice(0, 1);
  if (made.row !== null) made.row = Math.min(made.row, layer.queries - 1);
  if (made.column !== null) made.column = Math.min(made.column, layer.keys - 1);
  if (made.by === 'column' && made.column === null) made.column = layer.keys - 1;
  if (made.by === 'column') made.without = false;
  if (!part.values) made.measure = 'weight';
  return Object.freeze(made);
}

/** What to put beside a pane: the same in a further reading of as many items, as after an edit, or else the next head. */
export function besidePane(pane, { readings }) {
  const part = partOf(readings[pane.reading], pane.part),
    layer = layerOf(part, pane.layer);
  const others = readings.map((_, at) => (pane.reading + 1 + at) % readings.length).slice(0, -1);
  const alike = others.find((at) => {
    const there = readings[at].parts.find(({ name }) => name === part.name);
    const same = there?.layers.find(({ number }) => number === layer.number);
    return same?.queries === layer.queries && same?.keys === layer.keys;
  });
  if (alike !== undefined) return { ...pane, reading: alike };
  const heads = part.layers.flatMap(({ number, heads }) => heads.map((head) => ({ layer: number, heads: [head] })));
  const at = heads.findIndex((one) => one.layer === pane.layer && one.heads[0] === pane.heads[0]);
  return { ...pane, ...heads[(at + 1) % heads.length], join: 'one' };
}

/** A reading's part by its name, or the usual one. */
export function partOf({ parts }, name) {
  return parts.find((part) => part.name === name) ?? parts[0];
}

/** A part's layer by its number in the model, or its first. */
export function layerOf(part, number) {
  return part.layers.find((layer) => layer.number === number) ?? part.layers[0];
}
