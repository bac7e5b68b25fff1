// The chosen pair in all heads: which head puts most on it, and what its token looks at in any head.

import { Refused } from '../ask.js';
import { html } from '../dom.js';
import { percent } from '../numbers.js';
import { headList } from './ranks.js';
import { wordOf } from './tokens.js';

const PAUSE = 250; // milliseconds after the last choice
const MOST_LINES = 5;

/** Two questions, asked again a moment after another pair is chosen. `changed` is called after each answer. */
export function makeAcross({ request, changed }) {
  let asked = '',
    waiting = 0,
    stopping = null,
    pair = null,
    heaviest = null;

  function turn({ about: { reading, part }, by, row, column }) {
    if (!Number.isInteger(row) || !Number.isInteger(column)) return;
    const name = JSON.stringify([reading, part, by, row, column]);
    if (name === asked) return;
    stop();
    asked = name;
    waiting = setTimeout(() => {
      stopping = new AbortController();
      const { signal } = stopping;
      ask('pair', { reading, part, row, column }, signal).then((told) => {
        pair = told ?? pair;
        return changed();
      });
      ask('heaviest', { reading, part, by, at: by === 'row' ? row : column }, signal).then((told) => {
        heaviest = told ?? heaviest;
        return changed();
      });
    }, PAUSE);
  }

  /** An answer with what it is about, the reason why there is none, or nothing if it is no longer wanted. */
  async function ask(what, about, signal) {
    try {
      const told = await request(what, about, signal);
      return signal.aborted ? null : { ...told, about };
    } catch (error) {
      if (signal.aborted) return null;
      const gone = 'The server on this computer no longer answers.';
      return { about, said: error instanceof Refused ? error.message : gone };
    }
  }

  function stop() {
    clearTimeout(waiting);
    stopping?.abort();
    asked = '';
  }

  /** Both lists, as far as they are known. `chosen` tells whether a head is the chosen one. */
  function lists({ names }, chosen) {
    const query = (at) => tokenIn(names.queries, at),
      key = (at) => tokenIn(names.keys, at);
    return [pair && pairList(pair, query, key, chosen), heaviest && heaviestList(heaviest, query, key, chosen)];
  }

  return { turn, stop, lists };
}

function pairList({ about, heads = [], said = '' }, query, key, chosen) {
  const most = Math.max(...heads.map(([, , weight]) => weight), 1e-9);
  return headList({
    name: 'pair',
    title: ['Most on ', key(about.column), ' from ', query(about.row)],
    lines: heads.slice(0, MOST_LINES).map(([layer, head, weight]) => ({
      head: { layer, head },
      part: weight / most,
      text: percent(weight),
      on: chosen({ layer, head }),
    })),
    none: said || 'No head looks from one to the other.',
  });
}

function heaviestList({ about, found = [], said = '' }, query, key, chosen) {
  const byRow = about.by === 'row';
  return headList({
    name: 'heaviest',
    title: byRow
      ? ['What ', query(about.at), ' looks at, over all heads']
      : ['Who looks at ', key(about.at), ', over all heads'],
    lines: found.slice(0, MOST_LINES).map(([layer, head, row, column, weight]) => ({
      head: { layer, head },
      word: byRow ? key(column) : query(row),
      pair: { row, column },
      text: percent(weight),
      on: chosen({ layer, head }),
    })),
    none: said || 'No head puts weight there.',
  });
}

/** A token in a sentence, or its place where its text is not here. */
function tokenIn(names, at) {
  const name = names?.[at];
  return name === undefined ? `number ${at}` : html.q({ class: 'word' }, wordOf(name));
}
