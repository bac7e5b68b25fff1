// Which tokens stand on which line, from measured widths; it goes on as names arrive.

import { endsLine, hasGap, shownToken } from './tokens.js';

const MOST_IN_LINE = 64; // so that a screen of one-letter tokens stays small

/** Lines of a text, whose words `measure` gives the width of. */
export function makeLayout(measure) {
  let widths = new Map(); // of a distinct token, which is measured once
  let starts = new Int32Array(1024); // the first token of each line
  let lines = 0;
  let laid = 0; // tokens so far
  let at = 0; // where the line ends
  let room = 0;
  let broken = true;

  function widthOf(name) {
    let found = widths.get(name);
    if (found === undefined) {
      const { lead, text } = shownToken(name);
      found = { lead: lead.length, body: measure(text) };
      widths.set(name, found);
    }
    return found;
  }

  function begin(token) {
    if (lines === starts.length) {
      const longer = new Int32Array(2 * lines);
      longer.set(starts);
      starts = longer;
    }
    starts[lines] = token;
    lines += 1;
    at = 0;
  }

  return {
    get lines() {
      return lines;
    },
    get tokens() {
      return laid;
    },
    /** Forget all lines, and all widths if the font has changed. */
    reset(width, font) {
      [lines, laid, at, room, broken] = [0, 0, 0, width, true];
      if (font) widths = new Map();
    },
    /** Lay out the names that have arrived since. */
    extend(names, words) {
      const blank = measure(' ');
      for (; laid < names.length; laid += 1) {
        const { lead, body } = widthOf(names[laid]);
        const gap = blank * (words ? Number(hasGap(names[laid])) : lead);
        if (broken || at + gap + body > room || laid - starts[lines - 1] >= MOST_IN_LINE) begin(laid);
        at += body + (at || !words ? gap : 0);
        broken = endsLine(names[laid]);
      }
    },
    /** The tokens of a line. */
    span(line) {
      return [starts[line], line + 1 < lines ? starts[line + 1] : laid];
    },
    /** The line of a token. */
    lineOf(token) {
      let low = 0,
        high = lines - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (starts[middle] <= token) low = middle;
        else high = middle - 1;
      }
      return low;
    },
  };
}
