// The page: one state, drawn anew after every change; controls name what they do, and everything listens here.

import { ACTIONS, pasted, withEntry, withNumber } from './actions.js';
import { alone, answers, ask, openedAt, Refused } from './ask.js';
import { appear, barView } from './bar.js';
import { draw, html } from './dom.js';
import { csvOf, drawingOf, pictureOf, save } from './export.js';
import { exerciseView, growthView, openWindow } from './growth.js';
import { learnedView } from './heads.js';
import { itemsView, whatIfView } from './items.js';
import { linesView } from './lines.js';
import { pathView } from './path.js';
import { pythonView } from './python.js';
import { holdView, planeView, viewOf } from './plane.js';
import { problem } from './problem.js';
import { isOpen, questionView } from './question.js';
import { FIRST, fromAddress, sound, toAddress } from './state.js';
import { ledgerView, shown, triangleView } from './triangle.js';

const MOST_PAST = 100;
const past = [], future = [];
const given = { sentence: null, head: null, learned: null, said: null, problem: null, wrong: null };
const address = openedAt ?? location.hash.slice(1);
let state = address ? fromAddress(address) : Object.freeze(sound({ ...FIRST, ...ACTIONS.step(null, 1) }));
let trial = null, exercise = { placed: [], given: {} }, copied = false, dragged = null, drawing = false, stale = false;
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
  document.body.append(parts.bar, parts.path, html.main(null, parts.left, parts.mid, parts.right), html.footer({ class: 'strip' }, parts.heads, parts.python), parts.status,
    html.dialog({ id: 'growth', 'aria-labelledby': 'growth-title' }), html.dialog({ id: 'exercise', 'aria-labelledby': 'exercise-title' }));
}

/** Everything in sight, from the state alone; a field that is taken away while it is drawn may change the state again. */
function show() {
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
  const p = problem(state, given), veiled = isOpen(state, p);
  document.body.className = `learn ${p.n <= 3 ? 'big' : 'many'}${p.n > 8 ? ' crowded' : ''}`;
  document.body.style.setProperty('--n', p.n);
  draw(parts.bar, barView(state, { past: past.length, future: future.length, copied }));
  draw(parts.path, pathView(state));
  draw(parts.left, itemsView(state, p, given), whatIfView(state, p, given));
  draw(parts.mid, triangleView(state, p, veiled), ledgerView(state, p, veiled), questionView(state, p, trial, given.said));
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

/** Go to another state; `quietly` leaves no trace in the past, as while an arrow is dragged. */
function change(next, quietly = false) {
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
  if (before && (state.row !== before.row || state.column !== before.column || state.told !== before.told)) trial = null;
  if (!alone) history.replaceState(null, '', `#${toAddress(state)}`);
  show();
}

/** Whether two states ask Python the same about the altered formula. */
function sameProblem(a, b) {
  const { show, told, guess, step, question, chosen, column, ...one } = a;
  return Object.keys(one).every((key) => a[key] === b[key]);
}

/** The sentence, its learned heads, and the chosen head; what Python refuses is said, and what was shown stays. */
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

async function later(asked) {
  try {
    await asked();
  } catch (error) {
    if (error.name === 'AbortError') return;
    given.problem = error instanceof Refused || alone ? error.message
      : 'The server on this computer no longer answers. Start clearhead view again.';
    if (!given.sentence) given.sentence = { tokens: ['x₁', 'x₂'], plane: [[1, 0], [0, 1]], all: [[1, 0], [0, 1]], kept: 1, left: 0, notes: [] };
  }
  show();
}

function asked() {
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

function undo(from, to) {
  if (!from.length) return;
  const before = state;
  to.push(state);
  state = from.pop();
  arrive(before);
}

// Controls

document.addEventListener('click', (event) => {
  const target = event.target.closest('[data-do], [data-go], [data-open], [data-copy], [data-export], [data-set], [data-place], [data-quiz], #use-rows, #home');
  for (const menu of document.querySelectorAll('.menu[open]')) if (!menu.contains(event.target) || target) menu.open = false;
  if (!target || target.disabled) return;
  const { dataset } = target;
  if (dataset.do) return act(dataset.do, dataset.with, target);
  if (dataset.go === 'undo') undo(past, future);
  if (dataset.go === 'redo') undo(future, past);
  if (dataset.open) openNamed(dataset.open);
  if (dataset.copy) copy(dataset.copy);
  if (dataset.export) write(dataset.export);
  if (dataset.set) appear(dataset.set);
  if (dataset.place) place(dataset.place);
  if (dataset.quiz) quiz(...dataset.quiz.split(',').map(Number));
  if (target.id === 'use-rows') useRows();
  if (target.id === 'home') event.preventDefault();
  return undefined;
});

function act(name, to, target) {
  change(ACTIONS[name](state, to, given));
  if (target?.closest('.tri')) focusCell();
  if (['guess', 'tell'].includes(name)) document.getElementById('qz')?.focus();
}

document.addEventListener('change', (event) => {
  const { target } = event;
  if (target.id === 'sentence') change(ACTIONS.sentence(state, target.value));
  else if (target.id === 'formula') change(ACTIONS.formula(state, target.value));
  else if (target.dataset.row !== undefined) typedNumber(target);
});

document.addEventListener('input', (event) => {
  if (event.target.id === 'trial') {
    trial = Number(event.target.value);
    show();
  }
});

function typedNumber(field) {
  const { row, column, matrix } = field.dataset, at = { row: Number(row), column: Number(column), matrix };
  const next = matrix ? withEntry(state, at, field.value) : withNumber(state, given, at, field.value);
  given.wrong = next ? null : { ...at, text: field.value };
  given.problem = next ? null : `${field.value.slice(0, 20) || 'Nothing'} is no number here: type one such as 0.5, at most a billion.`;
  if (next) change(next);
  else show();
}

document.addEventListener('keydown', (event) => {
  const { target, key } = event;
  if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === 'z' && !/INPUT|TEXTAREA/.test(target.nodeName)) {
    event.preventDefault();
    return event.shiftKey ? undo(future, past) : undo(past, future);
  }
  if (key === 'Escape') for (const menu of document.querySelectorAll('.menu[open]')) menu.open = false;
  if (key === 'Enter' && target.nodeName === 'INPUT') target.dispatchEvent(new Event('change', { bubbles: true }));
  if (target.closest?.('.tri')) return walk(event);
  if (target.dataset?.tip !== undefined) return nudge(event, Number(target.dataset.tip));
  if (['ArrowLeft', 'ArrowRight'].includes(key) && /radio|tab/.test(target.getAttribute?.('role') ?? '')) {
    const all = [...target.parentElement.querySelectorAll('[role=radio], [role=tab]')];
    const next = all[(all.indexOf(target) + (key === 'ArrowRight' ? 1 : all.length - 1)) % all.length];
    next.focus();
    next.click();
  }
  return undefined;
});

/** Arrow keys, Home and End in the triangle. */
function walk(event) {
  const p = problem(state, given), { row, column } = p;
  const to = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], Home: [row, 0], End: [row, row] }[event.key];
  if (!to) return;
  event.preventDefault();
  const [i, j] = [Math.min(p.n - 1, Math.max(0, to[0])), Math.max(0, to[1])];
  change({ row: i, column: state.formula === 'no-mask' ? Math.min(p.n - 1, j) : Math.min(i, j) });
  focusCell();
}

function focusCell() {
  document.querySelector('.tri [tabindex="0"]')?.focus();
}

/** Arrow keys on an arrow's tip: a tenth, with Shift a whole. */
function nudge(event, j) {
  const step = event.shiftKey ? 1 : 0.1;
  const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
  if (!by) return;
  event.preventDefault();
  const p = problem(state, given);
  moveTip(j, p.v[j].map((x, c) => toHundredths(x + by[c])), false);
  document.querySelector(`[data-tip="${j}"]`)?.focus();
}

function toHundredths(x) {
  return Math.round(x * 100) / 100;
}

function moveTip(j, [x, y], quietly) {
  const one = withNumber(state, given, { row: j, column: 0 }, String(x));
  change({ ...one, vectors: one.vectors.map((line, i) => (i === j ? [x, y] : line)) }, quietly);
}

document.addEventListener('pointerdown', (event) => {
  const j = event.target.dataset?.tip;
  if (j === undefined) return;
  const p = problem(state, given);
  dragged = { j: Number(j), plane: event.target.ownerSVGElement };
  holdView(viewOf(p));
  past.push(state);
  future.length = 0;
  event.target.setPointerCapture?.(event.pointerId);
});

document.addEventListener('pointermove', (event) => {
  if (!dragged) return;
  const box = dragged.plane.getBoundingClientRect(), view = viewOf(), { viewBox } = dragged.plane;
  const x = ((event.clientX - box.left) / box.width) * viewBox.baseVal.width, y = ((event.clientY - box.top) / box.height) * viewBox.baseVal.height;
  moveTip(dragged.j, [toHundredths((x - view.x) / view.unit), toHundredths((view.y - y) / view.unit)], true);
});

for (const end of ['pointerup', 'pointercancel']) {
  document.addEventListener(end, () => {
    if (!dragged) return;
    dragged = null;
    holdView(null);
    show();
  });
}

// Windows and files

async function openNamed(name) {
  const p = problem(state, given);
  if (name === 'growth') {
    await later(async () => openWindow('growth', growthView(await ask('costs', { dim: p.d }))));
    return;
  }
  exercise = { placed: [], given: {} };
  await later(async () => { exercise.questions = (await ask('questions', asked())).questions; });
  openWindow('exercise', exerciseView(exercise));
}

function place(step) {
  exercise.placed = step === 'again' ? [] : [...exercise.placed, Number(step)];
  openWindow('exercise', exerciseView(exercise));
}

function quiz(at, option) {
  exercise.given[at] = option;
  openWindow('exercise', exerciseView(exercise));
}

function useRows() {
  const found = pasted(document.getElementById('paste').value);
  given.problem = found.problem ?? null;
  if (found.problem) return show();
  change({ ...found, row: -1, column: null, heads: 1, head: 0, told: false, guess: null });
  return undefined;
}

async function copy(what) {
  await navigator.clipboard.writeText(what === 'link' ? location.href : document.getElementById('python').textContent);
  copied = what === 'link';
  show();
  setTimeout(() => { copied = false; show(); }, 1500);
}

async function write(kind) {
  const p = problem(state, given);
  if (kind === 'csv') save('clearhead.csv', csvOf(p), 'text/csv');
  if (kind === 'svg') save('clearhead.svg', drawingOf(state, p).text, 'image/svg+xml');
  if (kind === 'png') save('clearhead.png', await pictureOf(state, p));
  if (kind === 'html') {
    await later(async () => {
      await Promise.all([ask('costs', { dim: p.d }), ask('questions', asked())]);
      const reply = await fetch('file', { method: 'POST', body: JSON.stringify({ known: answers(), state: toAddress(state) }), headers: { 'Content-Type': 'application/json' } });
      save('clearhead.html', await reply.blob());
    });
  }
}

window.addEventListener('hashchange', () => {
  const before = state;
  state = fromAddress(location.hash);
  arrive(before);
});

build();
arrive(null);
