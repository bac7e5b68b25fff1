// What each control does: from a state to the next one.

import { matricesOf, problem } from './problem.js';
import { FIRST, MOST_ITEMS } from './state.js';
import { PATH, PRESETS } from './course.js';
import { parsed, sub } from '../numbers.js';

const LARGEST = 1e9; // of a number typed
const PLAIN = {
  learned: null,
  formula: 'right',
  matrices: 'none',
  scaled: false,
  positions: false,
  window: null,
  heads: 1,
  head: 0,
};
const FRESH = { row: -1, column: null, told: false, guess: null };

export const ACTIONS = {
  tab: (state, to, given) =>
    to === 'sentence' ? { ...FRESH, vectors: null, names: null } : { ...asVectors(state, given), learned: null },
  sentence: (_, typed) => {
    const text = typed.trim().replace(/\s+/g, ' ');
    return { ...FRESH, text, own: text, vectors: null, names: null };
  },
  axes: (state, to) => ({ axes: to, row: state.row, column: null, told: false, heads: 1, head: 0 }),
  preset: (state, at) => ({
    ...FIRST,
    ...PLAIN,
    ...FRESH,
    step: state.step,
    question: state.question,
    names: null,
    ...PRESETS[at].set,
  }),
  choose: (state, to) => {
    const [row, column] = to.split(',').map(Number);
    return { row, column };
  },
  rowOnly: (state, row) => ({ row: Number(row), column: null }),
  show: (state, to) => ({ show: to }),
  scaled: (state) => ({ scaled: !state.scaled }),
  positions: (state) => ({ positions: !state.positions, told: state.told }),
  window: (state) => ({ window: state.window ? null : 3 }),
  matrices: (state, to) => ({ matrices: to, learned: null, ...(to === 'own' ? matricesOf(state) : {}) }),
  heads: (state, count) => ({ heads: Number(count), head: 0 }),
  head: (state, at) => ({ head: Number(at) }),
  formula: (state, to) => ({ formula: to, show: 'weights', told: true }),
  learned: (state, which) => ({
    learned: state.learned === which ? null : which,
    vectors: null,
    names: null,
    row: -1,
    column: null,
    show: 'weights',
    formula: 'right',
    told: true,
  }),
  shuffle: (state, _, given) => shuffled(state, given),
  guess: (state, at) => ({ guess: Number(at), told: true }),
  tell: () => ({ guess: null, told: true }),
  answer: (state, at) => ({ chosen: Number(at) }),
  again: () => ({ chosen: null }),
  nextQuestion: (state) => ({ question: (state.question + 1) % 8, chosen: null }),
  questions: () => ({ question: 0, chosen: null }),
  step: (state, to) => step(state, Number(to)),
  leave: (state) => ({ step: 0, question: state.question ?? 0 }),
  add: (state, _, given) => added(asVectors(state, given)),
  remove: (state, at, given) => removed(asVectors(state, given), Number(at)),
  dims: (state, by, given) => resized(asVectors(state, given), Number(by)),
};

/** A step of the path; a step about a sentence uses the reader's. */
function step(state, to) {
  const { set } = PATH[to - 1],
    own = state?.own ?? null;
  const text = set.text === FIRST.text && own ? { text: own, column: null } : {};
  return { ...FIRST, ...PLAIN, ...FRESH, names: null, chosen: null, ...set, ...text, own, step: to };
}

/** The items as editable vectors, with their words as names. */
function asVectors(state, given) {
  if (state.vectors) return state;
  const of = problem({ ...state, learned: null, formula: 'right' }, given);
  const wide = of.x[0].length > 8;
  const x = wide ? given.sentence.plane : of.x;
  return { ...state, vectors: x.map((row) => [...row]), names: [...of.names], learned: null };
}

/** Change one number of a vector. */
export function withNumber(state, given, { row, column }, text) {
  const value = parsed(text);
  if (!(Math.abs(value) <= LARGEST)) return null;
  const base = asVectors(state, given);
  return {
    ...base,
    vectors: base.vectors.map((line, i) => line.map((x, c) => (i === row && c === column ? value : x))),
  };
}

/** Change one entry of a matrix. */
export function withEntry(state, { matrix, row, column }, text) {
  const value = parsed(text);
  if (!(Math.abs(value) <= LARGEST)) return null;
  const now = matricesOf(state);
  const made = now[matrix].map((line, i) => line.map((x, c) => (i === row && c === column ? value : x)));
  return { ...state, ...now, matrices: 'own', [matrix]: made };
}

/** Rows pasted from a spreadsheet or Python; a first row of words is a header, a first column of words the names. */
export function pasted(text) {
  const plain = text
    .trim()
    .replace(/^(\w+\.)?array\(/, '')
    .replace(/,?\s*dtype=\w+/, '')
    .replace(/\],?\s*\[/g, '\n')
    .replace(/[[\]()]/g, '');
  const several = /\n/.test(plain);
  const lines = (several ? plain.split('\n') : plain.split(/;(?=.*,)/)).map((line) => line.trim().replace(/,$/, ''));
  const between = /\t/.test(plain) ? /\t/ : several && /;/.test(plain) ? /;/ : /[;,]\s*|\s+/;
  const cells = lines.filter(Boolean).map((line) =>
    line
      .split(between)
      .map((cell) => cell.trim())
      .filter(Boolean),
  );
  const isWord = (cell) => Number.isNaN(parsed(cell));
  const body = cells.length > 1 && cells[0].every(isWord) ? cells.slice(1) : cells;
  const named = body.every((line) => line.length > 1 && isWord(line[0]));
  const vectors = body.map((line) => (named ? line.slice(1) : line).map(parsed));
  const width = vectors[0]?.length ?? 0;
  const wrong = vectors.findIndex((line) => line.length !== width || !line.every((x) => Math.abs(x) <= LARGEST));
  if (!width || body.flat().every(isWord))
    return { problem: 'There are no numbers: paste a row for each item, as 1, 0.' };
  if (wrong >= 0) return { problem: `Row ${wrong + 1} does not hold ${width} numbers: give each item as many.` };
  if (width < 2 || width > 8)
    return { problem: `Each row holds ${width === 1 ? 'one number' : `${width} numbers`}: give 2 to 8.` };
  if (vectors.length > MOST_ITEMS) return { problem: `These are ${vectors.length} rows: give at most ${MOST_ITEMS}.` };
  return { vectors, names: named ? body.map((line) => line[0].slice(0, 40)) : null };
}

function added(state) {
  if (state.vectors.length >= MOST_ITEMS) return {};
  const line = state.vectors[0].map((_, c) => (c ? 0 : 1));
  const names = state.names ? [...state.names, `x${sub(state.vectors.length + 1)}`] : null;
  return { ...state, vectors: [...state.vectors, line], names, row: -1, column: null };
}

function removed(state, at) {
  if (state.vectors.length < 2) return {};
  const keep = (_, j) => j !== at;
  return {
    ...state,
    vectors: state.vectors.filter(keep),
    names: state.names?.filter(keep) ?? null,
    row: -1,
    column: null,
  };
}

function resized(state, by) {
  const width = state.vectors[0].length + by;
  if (width < 2 || width > 8) return {};
  const vectors = state.vectors.map((line) => (by > 0 ? [...line, 0] : line.slice(0, width)));
  return { ...state, vectors, heads: 1, head: 0 };
}

/** Reorder the items before the chosen row, so that the row's weights can be compared. */
function shuffled(state, given) {
  const base = asVectors(state, given),
    n = base.vectors.length,
    row = ((state.row % n) + n) % n;
  const names = base.names ?? base.vectors.map((_, j) => `x${sub(j + 1)}`);
  const order = [...Array(row).keys()];
  const first = order.length > 1 ? order.shift() : null; // moved to the end: another order for certain
  const next = first === null ? order : [...order.reverse(), first];
  const all = [...next, ...base.vectors.keys()].filter((j, at) => at < next.length || j >= row);
  const column = state.column === null || state.column >= row ? null : all.indexOf(state.column);
  return { ...base, vectors: all.map((j) => base.vectors[j]), names: all.map((j) => names[j]), row, column };
}
