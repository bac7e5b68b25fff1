// The page: one state, redrawn after every change, and the requests to Python about it.

import { ACTIONS } from './actions.js';
import { ask, keepAddress, openedAt, Refused } from '../ask.js';
import { appearAsBefore } from '../appearance.js';
import { barView } from './bar.js';
import { draw, html } from '../dom.js';
import { learnedView } from './heads.js';
import { itemsView, whatIfView } from './items.js';
import { linesView } from './lines.js';
import { pathView } from './path.js';
import { pythonView } from './python.js';
import { planeView } from './plane.js';
import { problem } from './problem.js';
import { isOpen, questionView } from './question.js';
import { FIRST, fromAddress, sound, toAddress } from './state.js';
import { ledgerView, shown, triangleView } from './triangle.js';

const MOST_PAST = 100;
const NO_SENTENCE = { tokens: ['x'], plane: [[1, 0]], all: [[1, 0]], kept: 1, left: 0, notes: [] };
export const past = [];
export const future = [];
/** Python's answers, and what is wrong with the input. */
export const given = { sentence: null, head: null, learned: null, said: null, problem: null, wrong: null };
const address = openedAt ?? location.hash.slice(1);
/** State that is not in the address: a score being tried out, whether the link was just copied. */
export const passing = { trial: null, copied: false };
export let state = address ? fromAddress(address) : Object.freeze(sound({ ...FIRST, ...ACTIONS.step(null, 1) }));
let drawing = false;
let stale = false;
let shownHeads, shownHead; // what the strip shows: it is large, and seldom changes

const parts = {};

function build() {
  parts.bar = html.header({ class: 'bar' });
  parts.path = html.div({ id: 'path' });
  parts.left = html.div({ class: 'left' });
  parts.mid = html.div({ class: 'mid' });
  parts.right = html.div({ class: 'right' });
  parts.heads = html.section({ class: 'learned', 'aria-labelledby': 'lh' });
  parts.python = html.section({ class: 'python', 'aria-labelledby': 'py' });
  parts.status = html.p({ class: 'unseen', role: 'status', id: 'spoken' });
  document.body.append(
    parts.bar,
    parts.path,
    html.main(null, parts.left, parts.mid, parts.right),
    html.footer({ class: 'strip' }, parts.heads, parts.python),
    parts.status,
    html.dialog({ id: 'growth', 'aria-labelledby': 'growth-title' }),
    html.dialog({ id: 'exercise', 'aria-labelledby': 'exercise-title' }),
  );
}

/** Draw the page from the state; removing a field while drawing may change the state again. */
export function show() {
  if (!given.sentence && !state.vectors) return;
  stale = true;
  if (drawing) return;
  drawing = true;
  while (stale) {
    stale = false;
    drawAll();
  }
  drawing = false;
}

function drawAll() {
  const p = problem(state, given),
    veiled = isOpen(state, p);
  document.body.className = `learn ${p.n <= 3 ? 'big' : 'many'}${p.n > 8 ? ' crowded' : ''}`;
  document.body.style.setProperty('--n', p.n);
  draw(parts.bar, barView(state, { past: past.length, future: future.length, copied: passing.copied }));
  draw(parts.path, pathView(state));
  draw(parts.left, itemsView(state, p, given), whatIfView(state, p, given));
  draw(
    parts.mid,
    triangleView(state, p, veiled),
    ledgerView(state, p, veiled),
    questionView(state, p, passing.trial, given.said),
  );
  draw(parts.right, linesView(state, p, veiled), planeView(state, p, veiled));
  draw(parts.python, pythonView(state, p));
  if (shownHeads !== given.learned || shownHead !== state.learned) {
    [shownHeads, shownHead] = [given.learned, state.learned];
    draw(parts.heads, learnedView(state, given.learned));
  }
  const stage = veiled || state.show === 'scores' ? 'score' : state.show.slice(0, -1);
  const seen = p.shown.seen[p.row][p.column];
  parts.status.textContent = `Row ${p.names[p.row]}, column ${p.names[p.column]}: ${seen ? `${stage} ${shown(p, veiled ? 'scores' : state.show, p.row, p.column, false)}` : 'not seen'}.`;
}

/** Go to another state; `quietly` adds no undo step, as while an arrow is dragged. */
export function change(next, quietly = false) {
  if (!quietly) {
    past.push(state);
    if (past.length > MOST_PAST) past.shift();
    future.length = 0;
  }
  const before = state;
  state = Object.freeze(sound({ ...state, ...next }));
  given.problem = given.wrong = null;
  arrive(before);
}

function arrive(before) {
  if (state.text !== before?.text || state.learned !== before?.learned) fetchAll();
  if (before && given.sentence && !sameProblem(state, before)) fetchConsequence();
  if (before && (state.row !== before.row || state.column !== before.column || state.told !== before.told))
    passing.trial = null;
  keepAddress(toAddress(state));
  show();
}

/** Whether two states need the same answer about the altered formula. */
function sameProblem(a, b) {
  const { show, told, guess, step, question, chosen, column, ...one } = a;
  return Object.keys(one).every((key) => a[key] === b[key]);
}

/** Request the sentence, its learned heads and the chosen head; an error is shown and the page stays as it was. */
async function fetchAll() {
  const { text, learned } = state;
  given.problem = null;
  await later(async () => {
    given.sentence = await ask('sentence', { text });
    show();
    fetchConsequence();
    given.learned = await ask('learned', { text });
    given.head = learned ? await ask('head', { text, head: learned }) : null;
  });
}

export async function later(asked) {
  try {
    await asked();
  } catch (error) {
    if (error.name === 'AbortError') return;
    given.problem =
      error instanceof Refused
        ? error.message
        : 'The server on this computer no longer answers. Start clearhead view again.';
    given.sentence ??= NO_SENTENCE;
  }
  show();
}

/** The problem on the page, in the form Python takes. */
export function asked() {
  const p = problem({ ...state, formula: 'right' }, given);
  const about = { names: p.names, q: p.q, row: p.row, scale: p.scale, window: state.window };
  return { problem: JSON.stringify(p.alike ? about : { ...about, k: p.k, v: p.v }) };
}

async function fetchConsequence() {
  given.said = null;
  if (state.formula === 'right') return;
  try {
    given.said = await ask('consequence', { ...asked(), formula: state.formula });
  } catch (error) {
    if (error.name === 'AbortError') return;
    given.said = { error: error.message };
  }
  show();
}

/** Undo or redo. */
export function undo(from, to) {
  if (!from.length) return;
  const before = state;
  to.push(state);
  state = from.pop();
  arrive(before);
}

/** Open the state in another address. */
export function openAt(text) {
  const before = state;
  state = fromAddress(text);
  arrive(before);
}

appearAsBefore();
build();
arrive(null);
