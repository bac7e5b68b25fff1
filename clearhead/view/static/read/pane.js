// One pane: it fetches what its state needs, drops stale answers, and draws its parts from the last one.

import { alone, Refused } from '../ask.js';
import { makeAnswer } from './answer.js';
import { draw, html } from '../dom.js';
import { makeHeard } from './heard.js';
import { remarksView } from './held.js';
import { heaviestOf, sameAbout, sameQuestion, scaleOf } from './line.js';
import { makeMap } from './map.js';
import { makeNames, wholeLine } from './names.js';
import { whole } from '../numbers.js';
import { headOf } from './said.js';
import { makeSheet } from './sheet.js';
import { layerOf, partOf } from './state.js';
import { makeTextPane } from './textpane.js';
import { makeTrust } from './trust.js';
import { makeViewbar } from './viewbar.js';
import { sentenceOf, spoken } from './wording.js';

const BEFORE_A_WORD = 150; // milliseconds before a wait is mentioned

/** A pane; `host` holds the state and takes what it asks: `change`, `move` (a row), `back` (undone), `act` (for both). */
export function makePane(host) {
  const { id, request, say } = host;
  let state = null; // sound, from the address
  let context = null; // the readings, and whether there are two panes
  let view = null; // what is drawn: always one whole answer
  let pointed = null; // the token that is followed while nothing is locked
  let locked = true;
  let waiting = null;
  let problem = null;
  let copied = false;
  let still = false; // whether the text stays where it is, as the reader's hand is in it
  let now = null; // the request for the line
  let trusted = { key: '', told: null };
  let lastSpoken = '';

  const names = makeNames(request, () => {
    if (view) drawAll(viewOf(view.state, view.line));
  });
  const viewbar = makeViewbar({
    label: 'What is shown',
    change: (next) => host.change(next),
    join: (join) => host.change({ join, heads: join === 'one' ? state.heads.slice(0, 1) : several() }),
    step: (by) => pane.stepLayer(by),
    act: (name) => (name === 'python' ? host.copyPython(view) : host.act(name)),
  });
  const text = makeTextPane({
    id,
    request,
    say,
    pick,
    point,
    by: (by) => turn(by),
    row: (row) => host.move({ row, column: null, by: 'row' }),
  });
  const answer = makeAnswer({
    id,
    pick: (item) => {
      const { by, at } = view; // of the list that is seen, even if another answer is on its way
      choose(by === 'row' ? { by, row: at, column: item } : { by, row: item, column: at });
    },
    act,
  });
  const map = makeMap({ request, alone, choose, how: (how) => host.change({ how }), say });
  const heard = makeHeard(request, () => view && drawPassing());
  const sheet = makeSheet({
    request: heard.request,
    alone,
    choose: ({ layer, head, ...pair }) =>
      ('row' in pair ? choose : host.change)({ layer, heads: [head], join: 'one', ...pair }),
    change: host.change,
    say,
  });
  const trust = makeTrust({ measure: (measure) => host.change({ measure }) });
  const stage = html.div({ class: 'stage' }, text.element, answer.element, map.element);
  const remarks = html.div({ class: 'remarks' });
  const element = html.section(
    { class: 'pane', id, 'aria-label': host.label },
    viewbar.element,
    remarks,
    stage,
    trust.element,
    sheet.element,
  );

  const regions = new Map([
    [viewbar.element, 'What is shown'],
    [text.element, 'Text'],
    [map.element, 'Map'],
    [trust.element, 'Checks'],
    [sheet.element, 'All heads'],
  ]);

  /** Beside another pane, each region also says which pane it is in. */
  function nameRegions(two) {
    element.setAttribute('aria-label', two ? host.label : 'View');
    for (const [part, name] of regions) part.setAttribute('aria-label', two ? `${name}, ${host.label}` : name);
  }

  /** The heads to join: those chosen, or all if it was one. */
  function several() {
    const layer = layerOf(partOf(context.readings[state.reading], state.part), state.layer);
    return state.heads.length > 1
      ? state.heads
      : [state.heads[0], ...layer.heads.filter((head) => head !== state.heads[0])];
  }

  /** The state with the row that is pointed at, while nothing is locked. */
  function shownState() {
    if (pointed === null) return state;
    return { ...state, ...(state.by === 'row' ? { row: pointed, column: null } : { column: pointed, row: null }) };
  }

  function viewOf(of, line) {
    const reading = context.readings[of.reading],
      part = partOf(reading, of.part),
      layer = layerOf(part, of.layer);
    const { by, without, how } = of,
      { join, measure, heads } = of;
    const about =
      view && sameAbout(view.about, of)
        ? view.about
        : Object.freeze({ reading: of.reading, part: part.name, layer: layer.number, heads, join, measure });
    const at = by === 'row' ? (of.row ?? (part.grid?.before ? 0 : layer.queries - 1)) : of.column;
    const other = by === 'row' ? of.column : of.row;
    const item =
      other ??
      (line ? heaviestOf(line, by) : null) ??
      Math.max(0, by === 'row' ? at + layer.sees.offset : at - layer.sees.offset);
    const [row, column] = by === 'row' ? [at, item] : [item, at];
    return Object.freeze({
      state: of,
      about,
      reading,
      part,
      layer,
      by,
      at,
      row,
      column,
      line,
      how,
      without,
      sheet: of.sheet,
      names: names.sides(about, part, layer),
      pair: line ? line.values[item] : null,
      scale: line && scaleOf(line, of, layer),
    });
  }

  /** Ask for what the state needs; the last answer stays until the next one is whole. */
  async function load() {
    const of = shownState(),
      next = viewOf(of, null);
    now?.abort();
    const mine = (now = new AbortController());
    let far = 'waiting for the answer';
    const mention = () => {
      if (mine !== now) return;
      waiting = `${next.by === 'row' ? 'Row' : 'Column'} ${whole(next.at)}: ${far}.`;
      drawPassing();
    };
    const patience = setTimeout(mention, BEFORE_A_WORD);
    names.load(next.about, next.part, next.layer).catch((error) => failed(error, mine));
    try {
      const asked = { ...next.about, by: next.by, at: next.at, without: next.without };
      const line = await wholeLine(request, asked, mine.signal, (done, of) => {
        far = `${whole(done)} of ${whole(of)} rows`;
        if (waiting) mention();
      });
      if (mine !== now) return;
      [problem, waiting] = [null, null];
      drawAll(viewOf(shownState(), line));
      askTrust();
    } catch (error) {
      failed(error, mine);
    } finally {
      clearTimeout(patience);
    }
  }

  function failed(error, mine) {
    if (mine !== now || error.name === 'AbortError') return;
    if (error instanceof Refused) goBack('Not available', error.message);
    else {
      const said = 'The server on this computer no longer answers.',
        then = view?.line ? `What you see is the last answer, ${lineSaid(view)}.` : '';
      [waiting, problem] = [null, { kind: 'Error', said, then, gone: true, again: load }];
      drawPassing();
    }
  }

  /** Where there is no answer, what is chosen is again what is shown. */
  function goBack(kind, said, again = null) {
    const asked = lineSaid(viewOf(shownState(), null));
    now = waiting = pointed = null;
    if (view?.line) host.back(view.state);
    problem = { kind, said, then: view?.line ? `Asked for ${asked}; shown is still ${lineSaid(view)}.` : '', again };
    drawPassing();
  }

  /** What a line is of, in words. */
  function lineSaid({ by, at, about }) {
    return `${by} ${whole(at)} of ${headOf(about)}`;
  }

  async function askTrust() {
    const { reading, part, layer } = view.about,
      key = `${reading} ${part} ${layer}`;
    if (trusted.key === key) return;
    trusted = { key, told: null };
    try {
      const told = await request('trust', { reading, part, layer });
      if (trusted.key === key) trusted.told = told;
    } catch (error) {
      if (trusted.key === key)
        trusted = { key: '', told: { checked: false, said: error instanceof Refused ? error.message : '' } };
    }
    drawTrust();
  }

  function drawTrust() {
    trust.update(view, trusted.told);
    stage.classList.toggle('doubted', Boolean(trusted.told?.failed));
  }

  function drawAll(next) {
    const moved =
      next.line && (!view?.line || view.row !== next.row || view.column !== next.column || view.part !== next.part);
    view = next;
    element.classList.toggle('cross', view.part.crosses);
    drawPassing();
    text.update(view);
    map.update(view);
    drawTrust();
    sheet.update(view);
    if (moved && !still)
      text.reveal(view, view.by === 'row' ? 'keys' : 'queries', view.by === 'row' ? view.column : view.row);
    if (moved) still = false;
    speak();
  }

  /** Say the sentence to those who do not see it, once it has its words and whenever it is another. */
  function speak() {
    const { row, column, names: known, line } = view;
    if (!line || pointed !== null || known.queries[row] === undefined || known.keys[column] === undefined) return;
    const sentence = spoken(sentenceOf(view)),
      told = `${row} ${column} ${sentence}`; // another pair's may read the same
    if (told !== lastSpoken) say(sentence);
    lastSpoken = told;
  }

  /** What is not part of an answer: the choices themselves, the lock, a wait, an error. */
  function drawPassing() {
    const next = viewOf(shownState(), null),
      drawn = view ?? next;
    viewbar.update(next.about === view?.about ? view : next, { ...context, copied });
    text.turned(state.by);
    draw(remarks, remarksView(drawn.reading));
    const passing = { locked, waiting, problem, without: state.without, heaviest: heard.of(drawn) };
    answer.update(drawn, passing);
    element.setAttribute('aria-busy', String(Boolean(waiting)));
  }

  /** Go to a row, a column or a pair of the reader's choice, which locks it. */
  function choose(next) {
    [locked, pointed] = [true, null];
    host.change(next);
  }

  /** Choose an item of a side: what is asked about, or the other of the pair. */
  function pick(side, item) {
    still = true;
    const to = side === 'queries' ? 'row' : 'column';
    choose(to === state.by ? { row: null, column: null, [to]: item } : { [to]: item });
  }

  /** Follow the pointer while nothing is locked. */
  function point(side, item) {
    if (locked || (item !== null && (side === 'queries') !== (state.by === 'row')) || pointed === item) return;
    pointed = item;
    still = true;
    load();
  }

  /** The same token, asked the other way round, with the heaviest of what it then has; of two texts, the other of the
   * pair. */
  function turn(by) {
    if (by === state.by) return;
    const { row, column, part, layer } = view ?? viewOf(state, null),
      { offset } = layer.sees;
    const key = part.crosses ? column : Math.max(0, row + offset),
      query = part.crosses ? row : Math.max(0, Math.min(layer.queries - 1, column - offset));
    host.change(by === 'column' ? { by, row: null, column: key, without: false } : { by, row: query, column: null });
  }

  function unlock() {
    locked = false;
    drawPassing();
    say('follows the pointer; Enter locks');
  }

  /** Wait no longer. */
  function giveUp() {
    now?.abort();
    const asked = shownState();
    goBack('Stopped', 'This was not waited for.', () => host.change(asked));
  }

  function act(name, value) {
    if (name === 'without') host.change({ without: value, column: null });
    if (name === 'unlock') unlock();
    if (name === 'lock') pane.lock();
    if (name === 'again') problem.again();
    if (name === 'stop') giveUp();
    if (name === 'head') {
      const { by, at } = view,
        [layer, head, item] = [value.layer, value.head, value.item].map(Number);
      const pair = by === 'row' ? { row: at, column: item } : { row: item, column: at };
      choose({ layer, heads: [head], join: 'one', by, ...pair });
    }
  }

  const pane = {
    element,
    get view() {
      return view;
    },
    get drawn() {
      return map.drawn();
    },
    /** Show another state. */
    update(next, around) {
      const before = state;
      nameRegions(around.two);
      [state, context] = [next, around];
      if (before && before.by !== next.by) pointed = null;
      if (!problem?.gone && view?.line) problem = null;
      if (view?.line && !problem && sameQuestion(view.state, shownState())) {
        now?.abort();
        [now, waiting] = [null, null];
        drawAll(viewOf(shownState(), view.line));
        return;
      }
      drawPassing();
      if (!now || problem || !sameQuestion(before, next)) load();
    },
    /** Show around it what has changed there. */
    refresh(around, done = false) {
      [context, copied] = [around, done];
      drawPassing();
    },
    /** Move the chosen token by a key of the keyboard; whether it was one. */
    moved(key, other) {
      const [side, item] = text.moved(key, viewOf(shownState(), view?.line ?? null), other) ?? [];
      if (!side) return false;
      pointed = null;
      still = true;
      if (other) host.move(side === 'queries' ? { row: item } : { column: item });
      else host.move(side === 'queries' ? { row: item, column: null } : { column: item, row: null });
      text.reveal(viewOf(state, null), side, item, true);
      return true;
    },
    focus() {
      text.focus();
    },
    stepLayer(by) {
      const { layers } = partOf(context.readings[state.reading], state.part);
      const at = layers.findIndex(({ number }) => number === state.layer) + by;
      if (layers[at]) host.change({ layer: layers[at].number });
    },
    stepHead(by) {
      const layer = layerOf(partOf(context.readings[state.reading], state.part), state.layer);
      const at = layer.heads.indexOf(state.heads[0]) + by;
      if (layer.heads[at] !== undefined) host.change({ heads: [layer.heads[at]], join: 'one' });
    },
    lock() {
      if (locked) return;
      const { row, column } = shownState();
      choose({ row, column });
    },
    /** Back out, one thing at a time: of a wait, of the lock, of the heads that are being drawn. */
    back(target) {
      if (waiting) giveUp();
      else if (sheet.element.contains(target) || !locked) sheet.stop();
      else unlock();
    },
    find: text.find,
    close() {
      now?.abort();
      map.stop();
      text.stop();
      sheet.close();
      element.remove();
    },
  };
  return pane;
}
