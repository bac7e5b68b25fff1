// One pane: it fetches what its state needs, drops stale answers, and draws its parts from the last one.

import { alone, Refused } from '../ask.js';
import { makeAnswer } from './answer.js';
import { floorOf, stepOf, topOf } from './colours.js';
import { html } from '../dom.js';
import { makeMap } from './map.js';
import { makeNames, wholeLine } from './names.js';
import { whole } from '../numbers.js';
import { makeSheet } from './sheet.js';
import { layerOf, partOf } from './state.js';
import { makeTextPane } from './textpane.js';
import { makeTrust } from './trust.js';
import { makeViewbar } from './viewbar.js';
import { sentenceOf, spoken } from './wording.js';

const BEFORE_A_WORD = 150; // milliseconds before a wait is mentioned

/** A pane; `host` holds the state: `change` asks for another, `move` for another row, `act` for what concerns both
 * panes. */
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
      host.change(by === 'row' ? { by, row: at, column: item } : { by, row: item, column: at });
    },
    act,
  });
  const map = makeMap({ request, alone, choose: (pair) => host.change(pair), how: (how) => host.change({ how }), say });
  const sheet = makeSheet({
    request,
    alone,
    choose: ({ layer, head, ...pair }) => host.change({ layer, heads: [head], join: 'one', ...pair }),
    change: host.change,
    say,
  });
  const trust = makeTrust({ measure: (measure) => host.change({ measure }) });
  const stage = html.div({ class: 'stage' }, text.element, answer.element, map.element);
  const element = html.section(
    { class: 'pane', id, 'aria-label': host.label },
    viewbar.element,
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
    let far = 'waiting for Python';
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
      if (pointed === null) say(spoken(sentenceOf(view)));
      askTrust();
    } catch (error) {
      failed(error, mine);
    } finally {
      clearTimeout(patience);
    }
  }

  function failed(error, mine) {
    if (mine !== now || error.name === 'AbortError') return;
    const gone = !(error instanceof Refused);
    const said = gone ? 'The server on this computer no longer answers.' : error.message;
    [waiting, problem] = [null, { kind: gone ? 'Error' : 'Not available', said, then: lastSaid(), gone }];
    drawPassing();
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
  }

  /** What is not part of an answer: the choices themselves, the lock, a wait, an error. */
  function drawPassing() {
    viewbar.update(viewOf(shownState(), null).about === view?.about ? view : viewOf(shownState(), null), {
      ...context,
      copied,
    });
    text.turned(state.by);
    answer.update(view ?? viewOf(shownState(), null), { locked, waiting, problem, without: state.without });
    element.setAttribute('aria-busy', String(Boolean(waiting)));
  }

  /** Choose an item of a side: what is asked about, or the other of the pair. */
  function pick(side, item) {
    still = true;
    const to = side === 'queries' ? 'row' : 'column';
    if (to === state.by) {
      [locked, pointed] = [true, null];
      host.change({ row: null, column: null, [to]: item });
    } else host.change({ [to]: item });
  }

  /** Follow the pointer while nothing is locked. */
  function point(side, item) {
    if (locked || (item !== null && (side === 'queries') !== (state.by === 'row')) || pointed === item) return;
    pointed = item;
    still = true;
    load();
  }

  /** The same token, asked the other way round. */
  function turn(by) {
    if (by === state.by) return;
    const { row, column, part, layer } = view ?? viewOf(state, null);
    if (part.crosses) host.change({ by, row, column, without: false });
    else if (by === 'column')
      host.change({ by, row: null, column: Math.max(0, row + layer.sees.offset), without: false });
    else host.change({ by, row: Math.max(0, Math.min(layer.queries - 1, column - layer.sees.offset)), column: null });
  }

  function unlock() {
    locked = false;
    drawPassing();
    say('follows the pointer; Enter locks');
  }

  /** Wait no longer; the last answer stays. */
  function giveUp() {
    now?.abort();
    now = null;
    [waiting, problem] = [null, { kind: 'Stopped', said: 'This was not waited for.', then: lastSaid() }];
    drawPassing();
  }

  /** What is seen while there is no newer answer. */
  function lastSaid() {
    return view?.line ? `What you see is the last answer, ${view.by} ${whole(view.at)}.` : '';
  }

  function act(name, value) {
    if (name === 'without') host.change({ without: value, column: null });
    if (name === 'unlock') unlock();
    if (name === 'lock') pane.lock();
    if (name === 'again') load();
    if (name === 'stop') giveUp();
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
      locked = true;
      const followed = shownState();
      pointed = null;
      host.change({ row: followed.row, column: followed.column });
      drawPassing();
    },
    /** Back out, one thing at a time: of a wait, of the lock, of the heads that are being drawn. */
    back(target) {
      if (waiting) giveUp();
      else if (sheet.element.contains(target) || !locked) sheet.stop();
      else unlock();
    },
    find: text.find,
    focus: text.focus,
    close() {
      now?.abort();
      map.stop();
      sheet.close();
      element.remove();
    },
  };
  return pane;
}

/** Whether a view is about what a state is about, its row aside. */
function sameAbout(about, { reading, part, layer, heads, join, measure }) {
  return (
    about.reading === reading &&
    about.part === part &&
    about.layer === layer &&
    about.join === join &&
    about.measure === measure &&
    about.heads.join() === heads.join()
  );
}

/** Whether two states are answered by the same line. */
function sameQuestion(a, b) {
  const at = ({ by, row, column }) => (by === 'row' ? row : column);
  return sameAbout(a, b) && a.by === b.by && at(a) === at(b) && a.without === b.without;
}

/** The heaviest item of a line; of a row, the first key aside, which rows rest on. */
function heaviestOf({ top }, by) {
  return ((by === 'row' ? top.find(([item]) => item > 0) : null) ?? top[0])?.[0] ?? null;
}

/** How a line is shaded; without the first key, as if the others were all. */
function scaleOf(line, { measure, without }, { sees }) {
  const share = without && measure === 'weight' ? 1 / Math.max(1e-9, 1 - line.first) : 1;
  const count = sees.high === null ? line.length : Math.max(1, line.seen[1] - line.seen[0]);
  const top = measure === 'value' ? topOf(line.values) : 1;
  const floor = floorOf(line.values, count);
  return {
    floor,
    top,
    plain: measure === 'value',
    step: (weight, at) => (without && !at ? 0 : stepOf(weight * share, floor, top)),
  };
}
