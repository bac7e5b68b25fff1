// Questions on the reader's numbers and the cost of longer texts, as clearhead/explain/quiz.py and cost.py have them.

import { checkFinite, plainProduct, workedOut } from './consequences.js';
import { dot, sum } from './learn/attention.js';
import { countOf, plainNumber, quotedToken } from './wording.js';

const COST_LENGTHS = [10, 100, 1_000, 10_000, 100_000, 1_000_000];
const MOST_DIMS = 64;

/** The questions, each with its options, the letter of the right one, and the reason. */
export function quizOn(text) {
  const e = workedOut(text);
  const asked = [ORDERING, zeroQuestion(e), sumQuestion(e), shapeQuestion(e)];
  return e.n > 1 ? [...asked, futureQuestion(e)] : asked;
}

/** Multiply-adds of attention and of a recurrent network as texts grow. */
export function costsFor(dim) {
  const d = Math.min(MOST_DIMS, Math.max(1, dim));
  const row = (n) => ({
    n,
    attention: n * (n + 1) * d,
    recurrent: 2 * n * d * d,
    attention_more: 2 * (n + 1) * d,
    recurrent_more: 2 * d * d,
  });
  return { dim: d, rows: COST_LENGTHS.map(row) };
}

const ORDERING = {
  text: 'Put the steps of self-attention in order, as in “bca”.',
  options: ['softmax', 'weighted sum of the vectors', 'scores: dot products'],
  answer: 'cab',
  why:
    'First the scores, for weights come from how alike items are; then softmax, which makes positive weights of ' +
    'them that add up to 1; then the sum of the vectors, each times its weight.',
};

function zeroQuestion({ q, row, names, of }) {
  const one = Math.exp(-of.shift),
    weight = of.shift > 0 ? one / (of.total + one) : 1 / (of.total * Math.exp(of.shift) + 1),
    shown = weight ? plainNumber(weight) : 'positive, if too small for a float64';
  const token = quotedToken(names[row]),
    angle = q[0].length > 1 && q[row].some(Boolean);
  return {
    text:
      `${angle ? `An item at right angles to ${token}` : 'A zero vector'} is added to what ` +
      `${angle ? 'it sees' : `${token} sees`}. Its score is 0. What is its weight?`,
    options: ['0: it is not looked at', `exp(0) ÷ (sum + exp(0)) = ${shown}`, '1: nothing speaks against it'],
    answer: 'b',
    why: `${zeroReason(token, of, shown)} Only a score of −∞, which hides an item, makes it 0.`,
  };
}

function zeroReason(token, { shift, total }, shown) {
  const all = plainNumber(total);
  if (!shift)
    return `exp(0) = 1. The exponentials of ${token} add up to ${all}, so the weight is 1 ÷ (${all} + 1) = ${shown}.`;
  const one = `exp(0 − ${plainNumber(shift)})`;
  return (
    `Here ${plainNumber(shift)} is taken from every score, which changes no weight and lets a float64 hold the ` +
    `exponentials. Those of ${token} then add up to ${all}, and ${one} ÷ (${all} + ${one}) is ${shown}.`
  );
}

function sumQuestion({ row, names, seen, of }) {
  return {
    text: `${quotedToken(names[row])} sees ${countOf(seen.filter(Boolean).length, 'item')}. What do its weights add up to?`,
    options: ['0: they cancel out', '1', 'to more, the more alike the items are'],
    answer: 'b',
    why:
      `Softmax divides every exponential by the sum of all, here ${plainNumber(of.total)}: the weights add up to 1, however ` +
      'many items there are.',
  };
}

function shapeQuestion({ n, q }) {
  const d = q[0].length;
  return {
    text: `X is (${n},${d}): ${countOf(n, 'item')}, each a vector of ${countOf(d, 'number')}. What is X Xᵀ, the scores?`,
    options: [
      `(${n},${n}): a number for each pair of items`,
      `(${d},${d}): a number for each pair of dims`,
      `(${n},${d}): a number for each dim of each item`,
    ],
    answer: 'a',
    why: `(${n},${d})·(${d},${n}) → (${n},${n}): a score for each pair. Xᵀ X would be (${d},${d}), which compares dims.`,
  };
}

function futureQuestion({ n, q, names }) {
  checkFinite(q.map((key) => plainProduct(q[0], key)));
  const scores = q.map((key) => dot(q[0], key)),
    largest = Math.max(...scores),
    late = Math.exp(scores[0] - largest) / sum(scores.map((score) => Math.exp(score - largest)));
  return {
    text: `${quotedToken(names[0])}, may see only itself. When must the future be hidden?`,
    options: ['before the softmax, by a score of −∞', 'after it, by a weight of 0', 'it does not matter'],
    answer: 'a',
    why:
      'Hidden before, its weight on itself, α₁₁, is 1. Hidden after, the sum would hold all ' +
      `${countOf(n, 'exponential')}, and ${plainNumber(late)} would be left of it.`,
  };
}
