// What another formula would do to the reader's numbers, in a sentence, as clearhead/explain/what_if.py says it.

import { Refused } from './ask.js';
import { attend, dot, sum } from './learn/attention.js';
import { countOf, countedInWords, listedWords, plainNumber, quotedToken } from './wording.js';

const SAME = 1e-12; // a relative difference up to this is rounding
const INVISIBLE = 5e-5; // a smaller difference does not show in four decimals
const ROLES = ' See it where they differ: choose other matrices, or a learned head.';
const SAME_VECTOR = `Nothing changes: here each item is key and value in one.${ROLES}`;
const FORMULA_NAMES = {
  'no-values': 'y = softmax(scores)',
  'values=keys': 'y = softmax(scores) K',
  'keys=values': 'y = softmax(Q Vᵀ) V',
  'no-softmax': 'y = scores · V',
  'scores-as-weights': 'y = scores ÷ Σ scores · V',
  'no-scale': 'y = softmax(Q Kᵀ) V',
  'divide-by-d': 'y = softmax(Q Kᵀ ÷ d) V',
  'mask-after-softmax': 'y = mask(softmax(scores)) V',
  'no-mask': 'y = softmax(scores of all) V',
};

/** The page's problem, worked out: its items, one row's right weights, and everything that the sentences need. */
export function workedOut(text) {
  const { names, q, k = q, v = q, row, scale = 1, window = null } = JSON.parse(text);
  const asked = { q, k, v, scale, window },
    right = attend(asked);
  checkFinite(k.filter((_, j) => right.seen[row][j]).map((key) => scale * plainProduct(q[row], key)));
  return {
    ...asked,
    asked,
    names,
    row,
    n: q.length,
    alike: k === q && v === q,
    weights: right.rows[row].weights,
    scores: right.rows[row].scores.map((score, j) => (right.seen[row][j] ? score : 0)),
    of: right.rows[row],
    seen: right.seen[row],
    output: right.outputs[row],
  };
}

/** Throw Refused where a score exceeds a float64. */
export function checkFinite(scores) {
  if (!scores.every(Number.isFinite))
    throw new Refused('The vectors are so long that their dot products exceed a float64: scale them down.');
}

/** A dot product as it comes, also where it overflows. */
export function plainProduct(a, b) {
  return a.reduce((total, x, c) => total + x * b[c], 0);
}

/** The consequence of another formula. */
export function consequenceOf(text, formula) {
  const e = workedOut(text);
  if (formula === 'keys=values' && e.v[0].length !== e.q[0].length)
    throw new Refused(
      `A query of ${e.q[0].length} numbers cannot be compared with values of ${e.v[0].length}: that is what keys are for. Give another --what-if.`,
    );
  const { rows, outputs } = attend(e.asked, formula);
  const a = rows[e.row].weights,
    y = outputs[e.row];
  if (formula !== 'no-values' && ![...y, sum(a)].every(Number.isFinite))
    throw new Refused('By this formula the numbers exceed a float64: scale the vectors down.');
  return { formula: FORMULA_NAMES[formula], consequence: SAID[formula](e, a, y) };
}

const SAID = {
  'no-values': (e) =>
    `What comes out is ${countOf(e.seen.filter(Boolean).length, 'weight')}, one for each item that is seen: where to look, and ` +
    `nothing of what is there. For all items the shape is (${e.n},${e.n}) in place of (${e.n},${e.v[0].length}): a row's length is ` +
    'that of the input, so that no layer could follow that takes vectors of a fixed size.',
  'values=keys': (e) =>
    e.alike
      ? SAME_VECTOR
      : `${asking(e)} gets what the items are found by in place of what they give: the same weights, a mean of ` +
        'keys. To be found by one thing and give another, an item needs two vectors.',
  'keys=values': (e, a) =>
    e.alike
      ? SAME_VECTOR
      : `${asking(e)} now looks for items by what they give, not by what they would be found by: ${largestSaid(e, a)}`,
  'no-softmax': (e, a, y) =>
    `${sumsSaid(e, a)} ${lengthsSaid(e, y)} Nothing keeps it from growing with the number of items.`,
  'scores-as-weights': (e, a, y) => {
    if (Math.abs(sum(e.scores)) <= SAME * sum(e.scores.map(Math.abs)))
      return 'The scores add up to 0, and nothing can be divided by that: there are no weights, and no output.';
    const zero = hasZeros(e) ? ' An item with score 0 would have no weight at all.' : '';
    return `${sumsSaid(e, a)}${zero} A sum of scores near 0 would blow all of them up. ${lengthsSaid(e, y)}`;
  },
  'no-scale': (e, a) => {
    if (e.scale === 1)
      return e.alike
        ? `Nothing changes: the first approach has no scale.${ROLES}`
        : 'Nothing changes: the scale is 1 already.';
    const grown = `Every score is ${plainNumber(1 / e.scale)} times as large, as a sum of ${countOf(e.q[0].length, 'product')} tends to grow`;
    return `${grown}, and softmax decides harder: ${largestSaid(e, a)}`;
  },
  'divide-by-d': (e, a) => {
    const d = e.q[0].length;
    if (d === 1) return 'Nothing changes: d = 1, and divided by 1 a score stays what it is.';
    return (
      `Divided by d = ${countedInWords(d)}, scores shrink, and weights come nearer to equal: ${largestSaid(e, a)} The ` +
      'spread of a sum of d products grows as √d, so √d is what takes it away.'
    );
  },
  'mask-after-softmax': (e, a, y) => {
    const hidden = e.seen.filter((seen) => !seen).length;
    if (!hidden) return seesAll(e);
    const total = plainNumber(sum(a)),
      left = total === '1.0000' ? 'a little less than 1' : `${total} and not to 1`;
    return (
      `The ${countOf(hidden, 'hidden item')} took part in the sum: the weights left add up to ${left}, and they leak ` +
      `what is hidden: other hidden items would give other weights. ${lengthsSaid(e, y)}`
    );
  },
  'no-mask': (e, a) => {
    const hidden = [...Array(e.n).keys()].filter((j) => !e.seen[j]);
    if (!hidden.length) return seesAll(e);
    const later = hidden.every((j) => j > e.row),
      named = listedWords(hidden.map((j) => quotedToken(e.names[j])));
    const what = `${asking(e)} would see ${later ? 'what comes later' : 'what the mask hides'}, ${named}, with `;
    return (
      `${what}${plainNumber(sum(hidden.map((j) => a[j])))} of its weight.` +
      (later
        ? ' That is bidirectional attention, right for reading a whole text; a model that learns to guess the next ' +
          'item would simply copy it, and learn little.'
        : '')
    );
  },
};

function asking(e) {
  return quotedToken(e.names[e.row]);
}

function seesAll(e) {
  const last = e.window === null && e.row === e.n - 1 && e.row > 0;
  return `Nothing changes: nothing is hidden from ${asking(e)}.${last ? ' Choose an earlier row.' : ''}`;
}

/** Whether a visible item's dot product is 0. */
function hasZeros(e) {
  const query = e.q[e.row];
  if (!query.some(Boolean)) return true;
  return e.k.some((key, j) => e.seen[j] && dot(query, key) === 0);
}

/** A sentence on numbers that are used as weights but do not add up to 1. */
function sumsSaid(e, weights) {
  const total = plainNumber(sum(weights)),
    negative = weights.filter((weight) => weight < 0).length,
    one = `They add up to ${total}${total === '1.0000' ? '' : ' and not to 1'}`;
  if (!negative) return `${one}.`;
  const which = itemNamed(e, weights.indexOf(Math.min(...weights)));
  return `${one}, and ${negative === 1 ? which : `${negative} items, ${which} most of all,`} would be subtracted rather than added.`;
}

function lengthsSaid(e, y) {
  return `The output has length ${plainNumber(Math.hypot(...y))}, the right one ${plainNumber(Math.hypot(...e.output))}.`;
}

/** A clause on the largest weight before and after. */
function largestSaid(e, a) {
  if (Math.max(...a.map((weight, j) => Math.abs(weight - e.weights[j]))) < INVISIBLE)
    return 'here no weight changes to speak of.';
  const j = heaviestOf(e.weights),
    other = heaviestOf(a),
    k = plainNumber(a[j]) === plainNumber(a[other]) ? j : other;
  const clause = `the largest weight, of ${itemNamed(e, j)}, goes from ${plainNumber(e.weights[j])} to ${plainNumber(a[j])}`;
  return j === k ? `${clause}.` : `${clause}, and ${itemNamed(e, k)} now has the most, ${plainNumber(a[k])}.`;
}

function heaviestOf(a) {
  const most = Math.max(...a) * (1 - SAME);
  return a.findIndex((weight) => weight >= most);
}

/** An item as named in a sentence, with its index where others have the same name. */
function itemNamed(e, j) {
  const several = e.names.filter((name) => name === e.names[j]).length > 1;
  return quotedToken(e.names[j]) + (several ? ` (item ${j})` : '');
}
