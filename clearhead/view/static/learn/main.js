// Event listeners: each control names its action, and all events are handled here.

import { ACTIONS, pasted, withEntry, withNumber } from './actions.js';
import { answers, ask, asFile } from '../ask.js';
import { appear } from '../appearance.js';
import { copyText, save } from '../files.js';
import { csvOf, drawingOf, pictureOf } from './export.js';
import { exerciseView, growthView, openWindow } from './growth.js';
import { change, future, given, later, openAt, passing, past, show, state, undo } from './page.js';
import { holdView, viewOf } from './plane.js';
import { problem } from './problem.js';
import { toAddress } from './state.js';

let exercise = { placed: [], given: {} };
let dragged = null;

document.addEventListener('click', (event) => {
  const target = event.target.closest(
    '[data-do], [data-go], [data-open], [data-copy], [data-export], [data-set], [data-place], [data-quiz], #use-rows, #home',
  );
  for (const menu of document.querySelectorAll('.menu[open]'))
    if (!menu.contains(event.target) || target) menu.open = false;
  if (!target || target.disabled) return;
  const { dataset } = target;
  if (dataset.do) return act(dataset.do, dataset.with, target);
  if (dataset.go === 'undo') undo(past, future);
  if (dataset.go === 'redo') undo(future, past);
  if (dataset.open) openNamed(dataset.open);
  if (dataset.copy) copy(dataset.copy);
  if (dataset.export) write(dataset.export);
  if (dataset.set) {
    appear(dataset.set);
    show();
  }
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
    passing.trial = Number(event.target.value);
    show();
  }
});

function typedNumber(field) {
  const { row, column, matrix } = field.dataset,
    at = { row: Number(row), column: Number(column), matrix };
  const next = matrix ? withEntry(state, at, field.value) : withNumber(state, given, at, field.value);
  given.wrong = next ? null : { ...at, text: field.value };
  given.problem = next
    ? null
    : `${field.value.slice(0, 20) || 'Nothing'} is no number here: type one such as 0.5, at most a billion.`;
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
  if (key === 'Escape' && target.nodeName === 'INPUT') {
    target.value = target.getAttribute('value');
    target.blur();
  }
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
  const p = problem(state, given),
    { row, column } = p;
  const to = {
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    Home: [row, 0],
    End: [row, row],
  }[event.key];
  if (!to) return;
  event.preventDefault();
  const [i, j] = [Math.min(p.n - 1, Math.max(0, to[0])), Math.max(0, to[1])];
  change({ row: i, column: state.formula === 'no-mask' ? Math.min(p.n - 1, j) : Math.min(i, j) });
  focusCell();
}

function focusCell() {
  document.querySelector('.tri [tabindex="0"]')?.focus();
}

/** Arrow keys on an arrow's tip move it by 0.1, with Shift by 1. */
function nudge(event, j) {
  const step = event.shiftKey ? 1 : 0.1;
  const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
  if (!by) return;
  event.preventDefault();
  const p = problem(state, given);
  moveTip(
    j,
    p.v[j].map((x, c) => toHundredths(x + by[c])),
    false,
  );
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
  const box = dragged.plane.getBoundingClientRect(),
    view = viewOf(),
    { viewBox } = dragged.plane;
  const x = ((event.clientX - box.left) / box.width) * viewBox.baseVal.width,
    y = ((event.clientY - box.top) / box.height) * viewBox.baseVal.height;
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

// Dialogs and files

async function openNamed(name) {
  const p = problem(state, given);
  if (name === 'growth') {
    await later(async () => openWindow('growth', growthView(await ask('costs', { dim: p.d }))));
    return;
  }
  exercise = { placed: [], given: {} };
  await later(async () => {
    exercise.questions = (await ask('questions', plainItems())).questions;
  });
  openWindow('exercise', exerciseView(exercise));
}

/** The vectors as the first approach uses them, which is what the quiz is about. */
function plainItems() {
  const { names, x, row } = problem({ ...state, learned: null, formula: 'right' }, given);
  return { problem: JSON.stringify({ names, q: x, row }) };
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
  await copyText(what === 'link' ? location.href : document.getElementById('python').textContent);
  passing.copied = what === 'link';
  show();
  setTimeout(() => {
    passing.copied = false;
    show();
  }, 1500);
}

async function write(kind) {
  const p = problem(state, given);
  if (kind === 'link') await copy('link');
  if (kind === 'csv') save('clearhead.csv', csvOf(p), 'text/csv');
  if (kind === 'svg') save('clearhead.svg', drawingOf(state, p).text, 'image/svg+xml');
  if (kind === 'png') save('clearhead.png', await pictureOf(state, p));
  if (kind === 'html') {
    await later(async () => {
      await Promise.all([ask('costs', { dim: p.d }), ask('questions', plainItems())]);
      save('clearhead.html', await asFile('learn', toAddress(state), answers()));
    });
  }
}

window.matchMedia('(max-width: 560px)').addEventListener('change', show);
window.addEventListener('hashchange', () => openAt(location.hash));
