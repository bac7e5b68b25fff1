// Names of items beside a map, and in sentences about it.

import { whole } from '../numbers.js';

const SPACE_SIGNS = { '\n': '⏎', '\r': '␍', '\t': '⇥' };

/** An item's name on one line; the number of the item while its name is not here. */
export function itemName(names, index) {
  const name = names?.[index];
  if (name === undefined) return whole(index);
  const seen = name.replace(/[\n\r\t]/g, (sign) => SPACE_SIGNS[sign]).trim();
  return seen || (name ? '␣' : '∅');
}

/** The same where there is little room: a patch by its row and column. */
export function briefName({ part, names }, side, index) {
  const { grid, crosses } = part;
  const patch = grid && (side === 'keys' || !crosses) ? index - grid.before : -1;
  if (patch < 0 || patch >= grid.rows * grid.columns) return itemName(names[side], index);
  return `${Math.floor(patch / grid.columns) + 1}, ${(patch % grid.columns) + 1}`;
}

/** A name of at most so many characters. */
export function shortened(name, most) {
  const signs = [...name];
  return signs.length <= most ? name : `${signs.slice(0, most - 1).join('')}…`;
}
