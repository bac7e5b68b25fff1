// Read: starts the screen. It holds the state, its past and its address, and hands keys and clicks to the panes.

import { keepAddress, openedAt, opening, Refused, request, writes } from '../ask.js';
import { appear, appearAsBefore, appearanceChoices, appearanceMenu } from '../appearance.js';
import { pythonOf } from './code.js';
import { icon, menu, menuChoice, menuGroup, MORE, REDO, screensNav, UNDO } from '../controls.js';
import { openAgain, openCode, openHelp } from './dialogs.js';
import { draw, html } from '../dom.js';
import { exportAs } from './exports.js';
import { keepFocus } from './focus.js';
import { copyText } from '../files.js';
import { makePane } from './pane.js';
import { besidePane, fromAddress, layerOf, partOf, soundPane, toAddress } from './state.js';

const MOST_PAST = 100;
const ONE_MOVE = 1000; // milliseconds in which moves are undone together
const SPEECH = 200; // milliseconds without another change before one is spoken
const EXPORTS = [
  ['png', 'Picture, PNG'],
  ['svg', 'Drawing, SVG'],
  ['csv', 'Numbers, CSV'],
  ['html', 'This page as one file, HTML'],
  ['link', 'Copy link'],
];

/** Whether a page offers an export: one in a file has nobody to write files, and no address. */
const offered = ([kind]) => !(kind === 'html' && !writes) && !(kind === 'link' && openedAt !== null);

appearAsBefore();
startReading();

/** Build the screen and show what the address says. */
async function startReading() {
  const bar = html.header({ class: 'bar' }),
    room = html.main({ class: 'panes' }),
    status = html.p({ class: 'unseen', role: 'status' });
  const panes = [];
  const past = [],
    future = [];
  let state = fromAddress(openedAt ?? (location.hash || opening?.state || ''));
  let found = null; // the readings
  let active = 0;
  let opened = 0; // panes so far
  let moved = { at: -Infinity, pane: null };
  let copied = null;
  let exporting = null; // what the menu says of the last export
  let speech = null;
  document.body.append(bar, room, status);
  keepFocus(room, () => panes[active]?.focus());

  /** Speak to those who do not see the page, once things have settled. */
  function say(text) {
    clearTimeout(speech);
    speech = setTimeout(() => {
      status.textContent = text;
    }, SPEECH);
  }

  function drawBar() {
    const can = (list) => !list.length;
    draw(
      bar,
      html.h1({ class: 'unseen' }, 'Read: what every token looks at'),
      html.span({ class: 'mark' }, 'clearhead'),
      screensNav(opening?.screen ?? 'Read', { 'data-go': 'here' }),
      html.span({ class: 'room' }),
      html.div(
        { class: 'tools' },
        panes.length > 1
          ? areAlike() &&
              html.label(
                { class: 'tick' },
                html.input({ type: 'checkbox', id: 'linked', checked: state.linked }),
                ' same rows in both',
              )
          : html.button(
              { class: 'quiet wide', 'data-go': 'compare', title: 'Two views side by side', disabled: !found },
              'Compare',
            ),
        html.button(
          { class: 'quiet icon', 'data-go': 'undo', 'aria-label': 'Undo', title: 'Undo (Ctrl Z)', disabled: can(past) },
          icon(UNDO),
        ),
        html.button(
          {
            class: 'quiet icon',
            'data-go': 'redo',
            'aria-label': 'Redo',
            title: 'Redo (Ctrl Shift Z)',
            disabled: can(future),
          },
          icon(REDO),
        ),
        openedAt === null
          ? html.button({ class: 'quiet wide', 'data-go': 'link' }, copied === 'link' ? 'Copied' : 'Copy link')
          : null,
        menu(exporting ?? 'Export', 'Export', exportEntries()),
        appearanceMenu(),
        html.button({ class: 'quiet icon wide', 'data-go': 'help', 'aria-label': 'Keys', title: 'Keys (?)' }, '?'),
        narrowMenu(),
      ),
    );
    const box = bar.querySelector('#linked');
    if (box) box.checked = state.linked;
  }

  /** Where the bar has little room, what it has none for. */
  function narrowMenu() {
    const entries = [
      panes.length > 1
        ? areAlike() && menuChoice({ 'data-go': 'linked' }, 'Same rows in both', state.linked, 'checkbox')
        : html.button({ 'data-go': 'compare', disabled: !found }, 'Compare'),
      menuGroup(exporting ?? 'Export', exportEntries()),
      ...appearanceChoices(),
      html.button({ 'data-go': 'help' }, 'Keys'),
    ];
    return menu(icon(MORE), 'More', entries.filter(Boolean), true, 'narrow');
  }

  const exportEntries = () => EXPORTS.filter(offered).map(([kind, name]) => html.button({ 'data-export': kind }, name));

  function newPane() {
    opened += 1;
    const host = {
      id: `pane${opened}`,
      label: `View ${opened}`,
      request,
      say,
      change: (next) => change(panes.indexOf(made), next),
      move: (next) => change(panes.indexOf(made), next, true),
      back: (shown) => back(panes.indexOf(made), shown),
      act: (name) => act(panes.indexOf(made), name),
      copyPython: (view) => copy(pythonOf(view), panes.indexOf(made)),
    };
    const made = makePane(host);
    return made;
  }

  /** Bring the screen to the state; where the button with the focus goes or is disabled, the active text has it. */
  function show() {
    const had = document.activeElement;
    bringToState();
    if (had && had !== document.body && (!had.isConnected || had.disabled)) panes[active].focus();
  }

  function bringToState() {
    state = Object.freeze({ ...state, panes: Object.freeze(state.panes.map((pane) => soundPane(pane, found))) });
    while (panes.length > state.panes.length) panes.pop().close();
    while (panes.length < state.panes.length) {
      panes.push(newPane());
      room.append(panes.at(-1).element);
      active = panes.length - 1;
    }
    active = Math.min(active, panes.length - 1);
    document.body.classList.toggle('double', panes.length > 1);
    keepAddress(toAddress(state));
    drawBar();
    panes.forEach((pane, at) => pane.update(state.panes[at], around()));
  }

  /** Whether both panes have the same rows and columns, so that they can move together. */
  function areAlike() {
    const sizes = state.panes.map((pane) => {
      const { queries, keys } = layerOf(partOf(found.readings[pane.reading], pane.part), pane.layer);
      return `${queries} ${keys}`;
    });
    return sizes.length > 1 && new Set(sizes).size === 1;
  }

  const around = () => ({ readings: found.readings, two: panes.length > 1 });

  /** Go to another state of a pane; moves that follow each other closely are undone together. */
  function change(at, next, move = false) {
    const time = performance.now();
    if (!(move && moved.pane === at && time - moved.at < ONE_MOVE)) past.push(state);
    moved = move ? { at: time, pane: at } : { at: -Infinity, pane: null };
    if (past.length > MOST_PAST) past.shift();
    future.length = 0;
    active = at;
    const { row, column, by } = { ...state.panes[at], ...next };
    const linked = state.linked && areAlike() && ('row' in next || 'column' in next || 'by' in next);
    const rows = linked ? { row, column, by } : {};
    const others = state.panes.map((pane, n) => (n === at ? { ...pane, ...next } : { ...pane, ...rows }));
    state = Object.freeze({ ...state, panes: Object.freeze(others) });
    show();
  }

  /** Let a pane's state be what it shows, as what was chosen cannot be shown; undo does not lead there again. */
  function back(at, shown) {
    const all = state.panes.map((pane, n) => (n === at ? shown : pane));
    state = Object.freeze({ ...state, panes: Object.freeze(all) });
    if (past.length && toAddress(past.at(-1)) === toAddress(state)) past.pop();
    show();
  }

  function undo(from, to) {
    if (!from.length) return;
    to.push(state);
    state = from.pop();
    moved = { at: -Infinity, pane: null };
    show();
  }

  function act(at, name) {
    if (name === 'compare') {
      const [one] = state.panes;
      past.push(state);
      state = Object.freeze({ ...state, panes: Object.freeze([one, besidePane(one, found)]) });
      active = 1;
      show();
    }
    if (name === 'close') {
      past.push(state);
      state = Object.freeze({ ...state, panes: Object.freeze(state.panes.filter((_, n) => n !== at)) });
      if (!at && panes.length > 1) panes.shift().close();
      show();
    }
    if (name === 'read') {
      openAgain(async (text) => {
        const { reading } = state.panes[at];
        const told = await request('again', { reading, text });
        found = { ...found, readings: told.readings };
        change(at, { reading: told.reading, part: null, row: null, column: null });
      });
    }
  }

  async function copy(text, what) {
    try {
      await copyText(text);
    } catch {
      openCode(text);
      return;
    }
    copied = what;
    say('Copied');
    for (const done of [true, false]) {
      if (!done) await new Promise((wait) => setTimeout(wait, 1500));
      if (!done) copied = null;
      drawBar();
      panes[what]?.refresh(around(), done);
    }
  }

  /** Save what is shown; the menu says how it went for a while. */
  async function exportShown(kind) {
    const tell = (text) => {
      exporting = text;
      drawBar();
      if (text) say(text);
    };
    tell('Writing …');
    try {
      const saved = await exportAs(kind, { panes, active: panes[active], state: toAddress(state), request });
      tell(`Saved ${saved}`);
    } catch (error) {
      tell(error instanceof Refused || error instanceof TypeError === false ? error.message : 'No answer');
    }
    await new Promise((wait) => setTimeout(wait, 4000));
    tell(null);
  }

  // Clicks

  document.addEventListener('click', (event) => {
    const target = event.target.closest('[data-go], [data-set], [data-export]');
    for (const open of document.querySelectorAll('.menu[open]')) {
      if (!open.contains(event.target) || target) open.open = false;
    }
    const at = panes.findIndex(({ element }) => element.contains(event.target));
    if (at >= 0) active = at;
    if (!target || target.disabled) return;
    const { go, set, export: kind } = target.dataset;
    if (set) {
      appear(set);
      drawBar();
    }
    if (go === 'undo') undo(past, future);
    if (go === 'redo') undo(future, past);
    if (go === 'link' || kind === 'link') copy(location.href, 'link');
    else if (kind) exportShown(kind);
    if (go === 'help') openHelp();
    if (go === 'compare') act(0, 'compare');
    if (go === 'linked') link(!state.linked);
    if (go === 'here') event.preventDefault();
  });

  document.addEventListener('focusin', ({ target }) => {
    const at = panes.findIndex(({ element }) => element.contains(target));
    if (at >= 0) active = at;
  });

  bar.addEventListener('change', ({ target }) => {
    if (target.id === 'linked') link(target.checked);
  });

  /** Whether both panes go to the same rows. */
  function link(linked) {
    state = Object.freeze({ ...state, linked });
    show();
  }

  // Keys

  document.addEventListener('keydown', (event) => {
    const { key, target } = event;
    if (event.defaultPrevented || document.querySelector('dialog[open]')) return;
    if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === 'z') {
      event.preventDefault();
      if (event.shiftKey) undo(future, past);
      else undo(past, future);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || !panes[active]) return;
    const done =
      key === 'Escape'
        ? escape(target)
        : among(event) || (!/^(INPUT|TEXTAREA|SELECT)$/.test(target.nodeName) && pressed(event));
    if (done) event.preventDefault();
  });

  /** Back out of what is open, in the order in which it covers the page. */
  function escape(target) {
    const open = document.querySelector('.menu[open]');
    if (open) {
      open.open = false;
      open.querySelector('summary').focus();
    } else panes[active].back(target);
    return true;
  }

  /** Arrow keys among buttons that are one choice. */
  function among({ key, target }) {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[key],
      group = target.closest?.('[role=radiogroup], .headpick');
    if (!by || !group) return false;
    const all = [...group.querySelectorAll('button')];
    const next = all[(all.indexOf(target) + by + all.length) % all.length];
    next.focus();
    if (next.getAttribute('role') === 'radio') next.click();
    return true;
  }

  function pressed(event) {
    const { key, target } = event,
      pane = panes[active];
    const inText = target === document.body || target.getAttribute?.('role') === 'listbox';
    if (key === '?') openHelp();
    else if (key === '/') pane.find();
    else if (key === '[' || key === ']') pane.stepLayer(key === '[' ? -1 : 1);
    else if (key === ',' || key === '.') pane.stepHead(key === ',' ? -1 : 1);
    else if (key === 'Enter' && inText) pane.lock();
    else return inText && pane.moved(key, event.shiftKey);
    return true;
  }

  window.addEventListener('hashchange', () => {
    if (!found) return;
    past.push(state);
    state = fromAddress(location.hash);
    show();
  });

  drawBar();
  await open();

  /** Ask what there is to read. */
  async function open() {
    const slow = setTimeout(
      () => draw(room, html.p({ class: 'opening cap' }, 'The model reads the text.')),
      SPEECH,
    );
    try {
      found = await request('readings', {});
      clearTimeout(slow);
      draw(room);
      show();
    } catch (error) {
      clearTimeout(slow);
      draw(room, openingTrouble(error));
      room.querySelector('button').addEventListener('click', open);
    }
  }
}

function openingTrouble(error) {
  const gone = !(error instanceof Refused);
  return html.div(
    { class: 'opening trouble', role: 'alert' },
    html.p({ class: 'tag' }, 'Error'),
    html.p({ class: 'say2' }, gone ? 'The server on this computer does not answer.' : error.message),
    gone ? html.p({ class: 'cap' }, 'Start ', html.code(null, 'clearhead view'), ' again, then') : null,
    html.p(null, html.button({ class: 'main' }, 'Try again')),
  );
}
