// A map's sentences: what a pixel is, what is under the pointer, and how far the map has come.

import { html } from '../dom.js';
import { whole } from '../numbers.js';
import { amount } from './colours.js';
import { itemName, shortened } from './labels.js';
import { seenBy } from './sight.js';
import { deepest } from './tiles.js';

const POOLED = { max: 'the largest', sum: 'the sum', mean: 'the mean' };
const MOST_SAID_NAME = 18;

/** "head 9.8", or what several heads are joined to. */
export function headOf({ layer, heads, join }) {
  if (join === 'one') return `head ${layer}.${heads[0]}`;
  return `${heads.length} heads of layer ${layer}, joined by ${join}`;
}

/** What a pixel is made of. */
export function pixelSentence(size, how, layer) {
  if (!size) return '';
  const { across, down } = size;
  if (across[1] === 1 && down[1] === 1) return 'Every square is one weight.';
  const side = ([least, most]) => (least === most ? `${most}` : `${least} to ${most}`);
  const square = ([least, most]) => (least === most ? `${most}²` : `${least}² to ${most}²`);
  const longer = layer.queries !== layer.keys && String(across) !== String(down);
  const cells = longer
    ? `${side(down)} × ${side(across)}`
    : square([Math.min(across[0], down[0]), Math.max(across[1], down[1])]);
  return `A pixel is ${POOLED[how]} of ${cells} cells; none skipped.`;
}

/** The cells of the pixel at a cell, and its value: { rows, columns, value }, each [first, end); null while unknown. */
export function spotAt(field, frame, port, { row, column }, layer) {
  const x = Math.floor(((column + 0.5 - port.x) * port.sx * field.width) / frame.width),
    y = Math.floor(((row + 0.5 - port.y) * port.sy * field.height) / frame.height);
  const alone = { rows: [row, row + 1], columns: [column, column + 1], value: undefined };
  if (x < 0 || y < 0 || x >= field.width || y >= field.height) return alone;
  const depth = field.depths[y * field.width + x];
  if (!depth) return alone;
  const cells = 1 << (deepest(layer) - depth + 1);
  const { across, down } = field.edgesAt(cells);
  const reach = (edges, at, length) => [
    edges[at] * cells,
    Math.min(length, Math.max(edges[at + 1], edges[at] + 1) * cells),
  ];
  const rows = reach(down, y, layer.queries),
    columns = reach(across, x, layer.keys);
  return { rows, columns, value: field.values[y * field.width + x], how: field.how };
}

/** What is at a spot, with both names, as parts of a sentence. */
export function cellSentence(view, spot) {
  if (!spot) return [];
  const { layer, names, about } = view;
  const [top, bottom] = spot.rows,
    [left, right] = spot.columns;
  const plain = about.measure === 'value' || spot.how === 'sum';
  const one = bottom - top === 1 && right - left === 1;
  if (one) {
    const query = itemNamed(names.queries, top),
      key = itemNamed(names.keys, left);
    const [first, end] = seenBy(layer, top);
    if (left >= end) return [key, ` comes later than `, query, ': not seen, exactly 0.'];
    if (left < first) return [key, ' is outside the window of ', query, ': not seen, exactly 0.'];
    if (spot.value === undefined) return [query, ' on ', key, ': not here yet.'];
    const shown = spot.value ? amount(spot.value, about.measure === 'value') : exactZero(layer);
    const [verb, place] = about.measure === 'value' ? [' takes ', ' from '] : [' puts ', ' on '];
    return [query, verb, html.b(null, shown), place, key, '.'];
  }
  const seen = seenBy(layer, bottom - 1)[1] > left && seenBy(layer, top)[0] < right;
  const rows = itemsSpan('rows', names.queries, top, bottom),
    columns = itemsSpan('columns', names.keys, left, right);
  if (!seen) return [...rows, ', ', ...columns, ': not seen, exactly 0.'];
  if (spot.value === undefined) return [...rows, ', ', ...columns, ': not here yet.'];
  return [...rows, ', ', ...columns, `: ${POOLED[spot.how]} is `, html.b(null, amount(spot.value, plain)), '.'];
}

function exactZero({ sees }) {
  return sees.other ? 'exactly 0 (hidden, or too small to hold)' : 'exactly 0 (too small to hold)';
}

function itemNamed(names, index) {
  const name = names?.[index];
  if (name === undefined) return html.span(null, `item ${whole(index)}`);
  return html.span(
    null,
    html.bdi({ class: 'word' }, shortened(itemName(names, index), MOST_SAID_NAME)),
    ` (${whole(index)})`,
  );
}

function itemsSpan(kind, names, first, end) {
  if (end - first === 1) return [`${kind.slice(0, -1)} `, itemNamed(names, first)];
  const words =
    names?.[first] === undefined || names?.[end - 1] === undefined
      ? []
      : [' (', itemWord(names, first), ' … ', itemWord(names, end - 1), ')'];
  return [`${kind} ${whole(first)}–${whole(end - 1)}`, ...words];
}

function itemWord(names, index) {
  return html.bdi({ class: 'word' }, shortened(itemName(names, index), MOST_SAID_NAME));
}

/** What a pixel is, or what is still missing, and what can be done about it. */
export function statusView({ progress, patient, said, coarse, head }) {
  const { done, of, halted, error } = progress;
  const count = `${done} of ${of} strips`;
  if (error) {
    const gone = error instanceof TypeError ? 'The server no longer answers.' : error.message;
    return html.div(
      { class: 'said err', role: 'alert' },
      html.p({ class: 'cap' }, `${gone} Incomplete: ${count}.`),
      html.button({ class: 'quiet', 'data-do': 'resume' }, 'Try again'),
    );
  }
  if (halted && done < of) {
    return html.div(
      { class: 'said' },
      html.p({ class: 'cap' }, `Incomplete: ${count}.`),
      html.button({ class: 'quiet', 'data-do': 'resume' }, 'Go on'),
    );
  }
  if (coarse) return html.div({ class: 'said' }, html.p({ class: 'cap' }, `${said} This file holds no sharper map.`));
  if (done < of && !patient) {
    return html.div(
      { class: 'said' },
      html.p({ class: 'cap' }, `Map of ${head}: ${count}.`),
      html.progress({ max: of, value: done, 'aria-label': 'Strips' }),
      html.button({ class: 'quiet', 'data-do': 'halt' }, 'Stop'),
    );
  }
  return said && html.div({ class: 'said' }, html.p({ class: 'cap' }, said));
}
