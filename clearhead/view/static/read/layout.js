// Which tokens stand on which line, from measured widths; it goes on as names arrive.

import { endsLine, hasGap, mayBreak, sharedCharacter, shownToken } from './tokens.js';

const MOST_IN_LINE = 64; // so that a screen of one-letter tokens stays small
const LEAST_PIECE = 1.6; // blanks that a piece of a character is wide

/** Lines of a text, whose words `measure` gives the width of. A line ends between words; a word that is longer than a
 * line ends anywhere. */
export function makeLayout(measure) {
  let widths = new Map(); // of a distinct token, which is measured once
  let pieces = new Map(); // token → its part of a character: { text, at, count, width }
  let starts = new Int32Array(1024); // the first token of each line
  let lines = 0;
  let laid = 0; // tokens so far
  let end = 0; // of the line
  let word = { token: 0, left: 0 }; // the last one in the line, which may have to go to the next line
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
    end = 0;
  }

  /** Put a token at the end of the line, or on the next line, with what it must not be parted from. */
  function place(token, gap, body, may) {
    const fits = () => end + gap + body <= room && token - starts[lines - 1] < MOST_IN_LINE;
    if (broken || (may && !fits())) begin(token);
    else if (!fits()) {
      const { token: first, left } = word,
        long = end - left;
      if (first > starts[lines - 1]) {
        begin(first);
        end = long;
      }
      if (!fits()) begin(token);
    }
    const starting = token === starts[lines - 1];
    if (may || starting) word = { token, left: starting ? 0 : end + gap };
    end += gap + body;
  }

  /** The pieces of a character that tokens share, each as wide as the others. */
  function placePieces({ text, count }, gap, blank, may) {
    const width = Math.ceil(Math.max(measure(shownToken(text).text) / count, count > 1 ? LEAST_PIECE * blank : 0));
    for (let at = 0; at < count; at += 1) {
      pieces.set(laid + at, { text, at, count, width });
      place(laid + at, at ? 0 : gap, width, may && !at);
      broken = false;
    }
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
      [lines, laid, end, room, broken] = [0, 0, 0, width, true];
      pieces = new Map();
      if (font) widths = new Map();
    },
    /** Lay out the names that have arrived since. */
    extend(names, words) {
      const blank = measure(' ');
      while (laid < names.length) {
        const name = names[laid],
          shared = sharedCharacter(names, laid);
        const { lead, body } = widthOf(name);
        const gap = blank * (words ? Number(hasGap(name)) : lead);
        const before = laid ? (pieces.get(laid - 1)?.text ?? names[laid - 1]) : '';
        const may = words ? hasGap(name) : mayBreak(before, lead || !shared ? name : shared.text);
        if (shared) placePieces(shared, gap, blank, may);
        else place(laid, gap, body, may);
        laid += shared?.count ?? 1;
        broken = endsLine(shared?.text ?? name);
      }
    },
    /** A token's part of a character, if it has only that. */
    pieceOf: (token) => pieces.get(token) ?? null,
    /** Whether a token is longer than a line. */
    isLong: (name) => widthOf(name).body > room,
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
