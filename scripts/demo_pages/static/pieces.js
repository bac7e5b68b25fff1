// The pieces of an unknown word, as clearhead/words/pieces.py finds them: a known stem, two words, runs of letters.

import { withoutEnding } from './forms.js';

const SUFFIXES =
  "s es ed d ing er ers or ly ness less ful ment ments able ible ation ations ion ions ity ies ied ier iest est y al ally ic ical ism ist ists ish ize izes ized izing ise ised ises ising ive ous ously like ship hood dom wise ward fy 's en age ery ess let ling".split(
    ' ',
  );
const PREFIXES =
  'un re in im dis non over under pre anti mis inter super sub out multi micro cyber hyper de co semi ultra tele bio auto post fore self mega mini counter'.split(
    ' ',
  );
const SHORTEST = 3; // letters of a piece
const SHORT = 3; // a piece of at most so many letters must be among the most usual words
const MOST_USUAL = 8000;
const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** The known word that is the longest part of this one, without a prefix or a suffix or both; `known` has ranks. */
export function stemOf(word, known) {
  let best = null,
    longest = 0;
  for (const [cut, root] of possibleRoots(word)) {
    if (cut.length > longest && isMeaningful(root, known)) [best, longest] = [root, cut.length];
  }
  return best;
}

/** The two known words that this one joins, cut as near to its middle as possible; the second may have an ending. */
export function compoundOf(word, known) {
  const cuts = [];
  for (let cut = SHORTEST; cut <= word.length - SHORTEST; cut += 1) cuts.push(cut);
  const nearest = (cut) => Math.min(cut, word.length - cut);
  cuts.sort((a, b) => nearest(b) - nearest(a));
  const halves = cuts
    .map((cut) => [word.slice(0, cut), word.slice(cut)])
    .filter(([first]) => isMeaningful(first, known));
  for (const [first, second] of halves) if (isMeaningful(second, known)) return [first, second];
  for (const [first, second] of halves) {
    const root = stemOf(second, known);
    if (root && second.startsWith(root) && root.length > SHORT) return [first, root];
  }
  return null;
}

/** The buckets that the word's runs of 3, 4 and 5 letters hash to, its beginning and end marked by < and >. */
export function letterBuckets(word, buckets) {
  const marked = [...`<${word}>`],
    runs = [];
  for (const n of [3, 4, 5])
    for (let at = 0; n < marked.length && at + n <= marked.length; at += 1)
      runs.push(marked.slice(at, at + n).join(''));
  return (runs.length ? runs : [marked.join('')]).map((run) => crcOf(run) % buckets);
}

function crcOf(text) {
  let found = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) found = CRC[(found ^ byte) & 255] ^ (found >>> 8);
  return (found ^ 0xffffffff) >>> 0;
}

function isMeaningful(piece, known) {
  return known.has(piece) && (piece.length > SHORT || known.get(piece) < MOST_USUAL);
}

function* possibleRoots(word) {
  yield* beforeSuffix(word);
  for (const prefix of PREFIXES) {
    if (!word.startsWith(prefix)) continue;
    const cut = word.slice(prefix.length);
    if (cut.length <= SHORTEST) continue;
    yield [cut, cut];
    yield* beforeSuffix(cut);
  }
}

function* beforeSuffix(word) {
  for (const suffix of SUFFIXES) {
    const cut = withoutEnding(word, suffix);
    if (cut === word || cut.length < SHORTEST + (suffix.length < SHORT ? 1 : 0)) continue;
    yield [cut, cut];
    yield [cut, `${cut}e`];
    yield [cut, `${cut}y`];
    if (cut.at(-1) === cut.at(-2)) yield [cut, cut.slice(0, -1)];
    if (cut.endsWith('i')) yield [cut, `${cut.slice(0, -1)}y`];
  }
}
