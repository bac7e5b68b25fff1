// Search in the text: words, or the number of a token after a #.

import { draw, html } from '../dom.js';
import { whole } from '../numbers.js';
import { areWords, hasGap } from './tokens.js';

const MOST_FOUND = 10000;
const NOTHING = { tokens: new Set(), now: null };

/** A search field; `host` has the names, shows and marks tokens, and may choose one. */
export function makeFind(host) {
  const input = html.input({
    type: 'search',
    placeholder: 'Find',
    'aria-label': 'Find words, or #token',
    spellcheck: 'false',
  });
  const element = html.label({ class: 'find' }, input, html.kbd({ 'aria-hidden': 'true' }, '/'));
  const result = html.div({ class: 'found', hidden: true });
  let found = []; // [first token, token behind the last]
  let at = 0;
  let chosen = false; // whether Enter has chosen this match
  let joined = null;

  function search() {
    const asked = input.value;
    found = asked.trim() ? matches(sought(), asked) : [];
    [at, chosen] = [0, false];
    const here = host.here();
    const next = found.findIndex(([from]) => from >= here);
    if (next > 0) at = next;
    arrive();
  }

  /** The text to search, joined once. */
  function sought() {
    const names = host.names();
    if (joined?.names !== names || joined.starts.length !== names.length + 1) joined = joinedText(names);
    return joined;
  }

  function arrive() {
    const tokens = new Set();
    for (const [from, to] of found) for (let token = from; token < to; token += 1) tokens.add(token);
    host.mark(found.length ? { tokens, now: found[at][0] } : NOTHING);
    if (found.length) host.show(found[at][0]);
    result.hidden = !input.value.trim();
    draw(result, resultView());
    host.say(result.hidden ? '' : said());
  }

  function said() {
    if (!found.length) return `Nothing like this among ${whole(host.names().length)} tokens`;
    const most = found.length === MOST_FOUND ? 'the first ' : '';
    return `${whole(at + 1)} of ${most}${whole(found.length)}, number ${whole(found[at][0])}`;
  }

  function resultView() {
    const step = (by, name, face) =>
      found.length > 1 && html.button({ class: 'quiet icon', 'data-by': by, 'aria-label': name }, face);
    return [
      html.span({ class: 'cap' }, said()),
      step(-1, 'Match before', '‹'),
      step(1, 'Next match', '›'),
      found.length > 0 && html.button({ class: 'quiet', 'data-by': 'choose' }, 'Choose ', html.kbd(null, '⏎')),
      html.button({ class: 'quiet', 'data-by': 'end' }, 'End'),
    ];
  }

  /** Choose the match that is shown, or the one beside it if it has been chosen already. */
  function choose(by = 1) {
    if (!found.length) return;
    if (chosen && found.length > 1) step(by);
    chosen = true;
    host.choose(found[at][0]);
  }

  function step(by) {
    if (!found.length) return;
    at = (at + by + found.length) % found.length;
    chosen = false;
    arrive();
  }

  function end() {
    input.value = '';
    search();
    host.back();
  }

  input.addEventListener('input', search);
  input.addEventListener('keydown', (event) => {
    event.stopPropagation(); // letters are letters here
    if (event.key === 'Escape') end();
    if (event.key === 'Enter') choose(event.shiftKey ? -1 : 1);
  });
  result.addEventListener('click', (event) => {
    const by = event.target.closest('[data-by]')?.dataset.by;
    if (by === 'choose') choose();
    else if (by === 'end') end();
    else if (by) step(Number(by));
  });
  return { element, result, focus: () => input.select(), close: () => input.value && end() };
}

/** All tokens as one text in small letters, and where each begins in it. */
function joinedText(names) {
  const words = areWords(names),
    starts = new Int32Array(names.length + 1),
    pieces = [];
  names.forEach((name, token) => {
    const piece = (words && hasGap(name) ? ' ' : '') + name.toLowerCase();
    pieces.push(piece);
    starts[token + 1] = starts[token] + piece.length;
  });
  return { names, starts, text: pieces.join('') };
}

/** Where a text stands among tokens, whatever its case and wherever tokens are cut; or the token after a #. */
function matches({ names, starts, text }, asked) {
  const number = /^#\s*(\d+)$/.exec(asked.trim());
  if (number) return Number(number[1]) < names.length ? [[Number(number[1]), Number(number[1]) + 1]] : [];
  const sought = asked.toLowerCase().trim(),
    found = [];
  let token = 0;
  for (
    let at = text.indexOf(sought);
    at >= 0 && found.length < MOST_FOUND;
    at = text.indexOf(sought, at + sought.length)
  ) {
    while (starts[token + 1] <= at) token += 1;
    let behind = token + 1;
    while (starts[behind] < at + sought.length) behind += 1;
    found.push([token, behind]);
  }
  return found;
}
