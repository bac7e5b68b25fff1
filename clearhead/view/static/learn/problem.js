// From the state to attention's input: named queries, keys and values, and notes on them.

import { attend, times, turned } from './attention.js';
import { MOST_ITEMS } from './state.js';
import { sub } from '../numbers.js';

/** Designed matrices: an item that points right asks for one that points down; in the first sentence a fruit asks for
 * a colour. */
const DESIGNED = {
  wq: [
    [0, -3],
    [0, 0],
  ],
  wk: [
    [0, 0],
    [0, 1],
  ],
  wv: [
    [1, 0],
    [0, 1],
  ],
};

/** Everything the page shows for a state. `given` holds the server's answers: { sentence, head }. */
export function problem(state, given) {
  const items = itemsOf(state, given);
  const { x, names } = items;
  const parts = state.learned && given.head ? { ...given.head } : projected(state, x);
  const heads = parts.scale === undefined && x[0].length % state.heads === 0 ? state.heads : 1;
  const head = Math.min(state.head, heads - 1);
  const own = parts.scale === undefined ? ofHead(parts, heads, head) : parts;
  if (state.positions && parts.scale === undefined) {
    own.q = turned(own.q);
    own.k = turned(own.k);
  }
  const d = own.q[0].length;
  const scale = parts.scale ?? (state.scaled ? 1 / Math.sqrt(d) : 1);
  const asked = { ...own, scale, window: state.window };
  const right = attend(asked);
  const shown = state.formula === 'right' ? right : attend(asked, state.formula);
  const n = x.length;
  const row = ((state.row % n) + n) % n;
  const column = chosenColumn(state, right, row);
  return {
    ...items,
    ...own,
    n,
    d,
    scale,
    heads,
    head,
    row,
    column,
    right,
    shown,
    alike: own.q === own.k && own.k === own.v,
    letters: own.q === own.v ? ['x', 'x', 'x'] : ['q', 'k', 'v'],
    flat: x[0].length === 2 && heads === 1 && own.v[0].length === 2,
    zero: isZero(shown, row, column) && column < row && state.formula === 'right',
    labels: labels(names),
    narrow: n > 8 || isSmall(),
    altered: !['right', 'no-values'].includes(state.formula),
    found: shown.found,
    counted: [...Array(n).keys()].filter((j) => shown.seen[row][j] || state.formula === 'mask-after-softmax'),
    nothing: state.formula === 'scores-as-weights' && shown.rows[row].weights.every((weight) => !weight),
    plainWeights: ['no-softmax', 'scores-as-weights'].includes(state.formula),
  };
}

/** Whether the screen is as narrow as a phone's, where cells hold short numbers. */
function isSmall() {
  return window.matchMedia('(max-width: 560px)').matches;
}

/** Items and their vectors. */
function itemsOf(state, given) {
  if (state.learned && given.head) return { names: given.head.names, x: given.head.v, left: given.head.left };
  if (state.vectors) {
    const names = state.names ?? state.vectors.map((_, j) => `x${sub(j + 1)}`);
    return { names, x: state.vectors, left: 0 };
  }
  const { tokens, plane, all } = given.sentence;
  const x = state.axes === 'two' ? plane : all;
  return { names: tokens, x: x.slice(0, MOST_ITEMS), left: given.sentence.left };
}

function projected(state, x) {
  if (state.matrices === 'none' || x[0].length !== 2) return { q: x, k: x, v: x };
  const { wq, wk, wv } = matricesOf(state);
  return { q: times(x, wq), k: times(x, wk), v: times(x, wv) };
}

/** The three matrices in use. */
export function matricesOf(state) {
  const own = state.matrices === 'own';
  return Object.fromEntries(Object.entries(DESIGNED).map(([key, made]) => [key, (own && state[key]) || made]));
}

function ofHead({ q, k, v }, heads, head) {
  if (heads === 1) return { q, k, v };
  const size = q[0].length / heads;
  const cut = (x) => x.map((row) => row.slice(head * size, (head + 1) * size));
  const own = cut(q);
  return { q: own, k: k === q ? own : cut(k), v: v === q ? own : cut(v) };
}

function chosenColumn(state, right, row) {
  if (state.column !== null && state.column <= row && state.column >= 0) return state.column;
  const weights = right.rows[row].weights.slice(0, row);
  return row ? weights.indexOf(Math.max(...weights)) : 0;
}

function isZero(shown, row, column) {
  const { scores } = shown.rows[row];
  return Math.abs(scores[column]) < 1e-9;
}

/** Distinct names for items: a repeated word gets its position. */
function labels(names) {
  return names.map((name, j) => (names.filter((other) => other === name).length > 1 ? `${name}${sub(j + 1)}` : name));
}
