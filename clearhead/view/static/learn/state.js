// The reader's choices as one frozen value, which the address holds and undo steps back through.

import { FORMULAS } from './course.js';

export const MOST_ITEMS = 12;

export const FIRST = Object.freeze({
  text: 'a red apple and a green pear',
  own: null, // the last sentence that the reader typed, which the path keeps
  vectors: null, // [[…], …] typed by the reader, in place of a sentence
  names: null, // of those
  axes: 'two', // of a sentence's vectors: two, or all
  row: -1,
  column: null, // the chosen pair; the last row, and in it the largest weight but its own
  show: 'weights',
  scaled: false,
  positions: false,
  window: null,
  matrices: 'none',
  wq: null,
  wk: null,
  wv: null,
  heads: 1,
  head: 0,
  learned: null, // a head of the small model, as "3.0"
  formula: 'right',
  told: false, // whether the question about a score of 0 is answered
  guess: null, // how
  step: 1, // of the guided path; 0 once left
  question: 0,
  chosen: null, // of the eight, and the answer given
});

const WORDS = ['text', 'own', 'axes', 'show', 'matrices', 'learned', 'formula'];
const NUMBERS = ['row', 'column', 'window', 'heads', 'head', 'step', 'question', 'chosen', 'guess'];
const SWITCHES = ['scaled', 'positions', 'told'];
const TABLES = ['vectors', 'wq', 'wk', 'wv'];

/** The part of an address that holds the differences from the initial state. */
export function toAddress(state) {
  const told = new URLSearchParams();
  for (const key of [...WORDS, ...NUMBERS, ...SWITCHES]) {
    if (state[key] !== FIRST[key]) told.set(key, state[key] ?? 'none');
  }
  for (const key of TABLES) {
    if (state[key]) told.set(key, state[key].map((row) => row.map((x) => String(x)).join(',')).join(';'));
  }
  if (state.names) for (const name of state.names) told.append('name', name);
  return told.toString();
}

/** The state in an address; invalid parts are ignored. */
export function fromAddress(text) {
  const told = new URLSearchParams(text.replace(/^#/, ''));
  const state = { ...FIRST };
  for (const key of WORDS) if (told.has(key)) state[key] = told.get(key) === 'none' ? noneOf(key) : told.get(key);
  for (const key of NUMBERS)
    if (told.has(key)) state[key] = told.get(key) === 'none' ? null : wholeOf(told.get(key), key);
  for (const key of SWITCHES) if (told.has(key)) state[key] = told.get(key) === 'true';
  for (const key of TABLES) if (told.has(key)) state[key] = rowsOf(told.get(key));
  if (told.has('name')) state.names = told.getAll('name').map((name) => name.slice(0, 40));
  return Object.freeze(sound(state));
}

function noneOf(key) {
  return key === 'matrices' ? 'none' : null;
}

function wholeOf(text, key) {
  return /^-?\d{1,4}$/.test(text) ? Number(text) : FIRST[key];
}

function rowsOf(text) {
  const rows = text
    .split(';')
    .slice(0, MOST_ITEMS)
    .map((row) => row.split(',').slice(0, 8).map(Number));
  return rows.every((row) => row.length === rows[0].length && row.every(Number.isFinite)) ? rows : null;
}

/** The state with its parts made consistent. */
export function sound(state) {
  const made = { ...state };
  const among = (key, options) => {
    if (!options.includes(made[key])) made[key] = FIRST[key];
  };
  among('axes', ['two', 'all']);
  among('show', ['scores', 'exponentials', 'weights']);
  among('matrices', ['none', 'designed', 'own']);
  among('heads', [1, 2, 4]);
  if (made.learned !== null && !/^\d\.\d$/.test(made.learned)) made.learned = null;
  if (made.window !== null && made.window < 1) made.window = null;
  for (const key of ['wq', 'wk', 'wv']) {
    if (made[key] && (made[key].length !== 2 || made[key][0].length !== 2)) made[key] = null;
  }
  if (made.vectors && (made.names?.length ?? 0) !== made.vectors.length) made.names = null;
  made.step = Math.min(10, Math.max(0, made.step ?? 0));
  if (made.question !== null) made.question = Math.min(7, Math.max(0, made.question));
  among(
    'formula',
    FORMULAS.map(([name]) => name),
  );
  return made;
}
