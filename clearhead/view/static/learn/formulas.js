// Formulas as MathML, each piece in a separate `math` element so that a line can break between them.

import { math } from '../dom.js';

export const mi = (text) => math.mi(null, text);
export const mn = (text, pair) => math.mn(pair ? { class: 'pairc' } : null, text);
export const mo = (text) => math.mo(null, text);
export const msub = (letter, index) => math.msub(null, mi(letter), math.mn(null, String(index)));

const SPACED = { '=': '.24em', '+': '.2em', '÷': '.2em' };

/** One unbreakable piece; an operator at its start keeps its spacing. */
export function piece(...parts) {
  return math.math(null, ...parts.map((part) => (typeof part === 'string' ? infix(part) : part)));
}

function infix(text) {
  const space = SPACED[text];
  return math.mo(space ? { form: 'infix', lspace: space, rspace: space } : null, text);
}
