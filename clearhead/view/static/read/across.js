// The chosen pair in all heads: which head puts most on it, and what its token looks at in any head.

import { Refused } from '../ask.js';
import { html } from '../dom.js';
import { percent, whole } from '../numbers.js';
import { headList } from './ranks.js';
import { wordAt } from './wording.js';

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
    if (pair?.about.reading !== reading || pair.about.part !== part) pair = null; // another text's words and numbers
    if (heaviest?.about.reading !== reading || heaviest.about.part !== part) heaviest = null;
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
  function lists(view, chosen) {
    return [heaviest && heaviestList(heaviest, view, chosen), pair && pairList(pair, view, chosen)];
  }

  return { turn, stop, lists };
}

function pairList({ about, heads = [], said = '' }, view, chosen) {
  const { row, column } = about,
    most = Math.max(...heads.map(([, , weight]) => weight), 1e-9);
  const query = tokenIn(view, 'queries', row),
    key = tokenIn(view, 'keys', column),
    alike = query === key;
  const title = isItself(view, row, column)
    ? ['Most on itself, ', wordView(query)]
    : [
        'Most on ',
        wordView(key),
        alike && ` (${whole(column)})`,
        ' from ',
        wordView(query),
        alike && ` (${whole(row)})`,
      ];
  return headList({
    name: 'pair',
    title,
    said: 'Heads by their weight on the chosen pair.',
    lines: heads.slice(0, MOST_LINES).map(([layer, head, weight]) => ({
      head: { layer, head },
      part: weight / most,
      text: percent(weight),
      on: chosen({ layer, head }),
      isPair: chosen({ layer, head }) && row === view.row && column === view.column,
    })),
    none: said || 'No head looks from one to the other.',
  });
}

function heaviestList({ about, found = [], said = '' }, view, chosen) {
  const byRow = about.by === 'row',
    other = byRow ? 'keys' : 'queries';
  const at = wordView(tokenIn(view, byRow ? 'queries' : 'keys', about.at));
  const shown = found.slice(0, MOST_LINES),
    places = shown.map(([, , row, column]) => (byRow ? column : row)),
    words = places.map((place) => tokenIn(view, other, place));
  const alike = words.map((word, n) => words.some((one, m) => one === word && places[m] !== places[n]));
  return headList({
    name: 'heaviest',
    title: byRow ? ['What ', at, ' looks at'] : ['Who looks at ', at],
    said: 'The heaviest weights of all heads.',
    lines: shown.map(([layer, head, row, column, weight], n) => ({
      head: { layer, head },
      word: alike[n] ? `${words[n]} (${whole(places[n])})` : words[n],
      pair: { row, column },
      text: percent(weight),
      on: chosen({ layer, head }),
      isPair: chosen({ layer, head }) && row === view.row && column === view.column,
    })),
    none: said || 'No head puts weight there.',
  });
}

/** A token in a sentence, or its place where its text is not here. */
function tokenIn(view, side, at) {
  return view.names[side]?.[at] === undefined ? `number ${whole(at)}` : wordAt(view, side, at);
}

function wordView(word) {
  return html.q({ class: 'word' }, word);
}

/** Whether a query and a key are the same item of one text. */
function isItself(view, row, column) {
  return !view.part.crosses && row + view.layer.sees.offset === column;
}
