// What heads do: measures of a head, each with a sentence that says what it is, and the heads that lead in each.

import { html, svg } from '../dom.js';
import { fixed, percent, whole } from '../numbers.js';

const NBSP = '\u00a0';

/** How the counts of one list are printed: with a decimal, or without one where all are at least ten. */
function countsOf(values) {
  return decimals(Math.min(...values) < 10 ? 1 : 0);
}

/** Prints numbers with so many decimals; one that has no digit there is said to be below the least that has. */
function decimals(places) {
  return (value) => {
    const text = places ? fixed(value, places) : whole(Number(fixed(value, 0)));
    return value > 0 && text === fixed(0, places) ? `< ${fixed(10 ** -places, places)}` : text;
  };
}

const shares = () => percent,
  nats = () => decimals(2);

/** Measures by the name that they have in an answer: a heading, what it is, and how a list of its numbers is printed. */
export const HEAD_MEASURES = {
  induction: { title: 'Continues a repeat', said: 'Weight on what followed the same token.', printer: shares },
  previous: { title: 'Looks one back', said: 'Weight on the token just before.', printer: shares },
  duplicate: { title: 'Finds itself again', said: 'Weight on the same token elsewhere.', printer: shares },
  first: { title: 'Rests on the first', said: 'Weight on the very first token.', printer: shares },
  within: { title: 'Stays near', said: 'Weight within 64 tokens.', printer: shares },
  effective: { title: 'Width', said: 'As if spread evenly over so many tokens.', printer: countsOf },
  distance: { title: 'Distance', said: 'How far away its weight lies.', printer: countsOf },
  off_first: { title: 'Strongest', said: 'The largest weight on any token but the first.', printer: shares },
  entropy: { title: 'Entropy', said: 'How evenly weight is spread, in nats; 0 is all on one token.', printer: nats },
};

/** What a measure is, in words; `unit` and `many` is what the items of the text are called. */
export function measureSaid(name, [unit, many]) {
  return HEAD_MEASURES[name].said.replace(/tokens?/g, (word) => (word === 'token' ? unit : many));
}

/** The lists beside the sheet, in order: a measure, and whether its largest or its smallest values lead. */
export const RANKINGS = [
  { by: 'induction', falling: true },
  { by: 'previous', falling: true },
  { by: 'first', falling: true },
  { by: 'effective', falling: true, title: 'Widest', words: (count) => `as if ${count}` },
  { by: 'duplicate', falling: true },
  { by: 'effective', falling: false, title: 'Sharpest', words: (count) => `as if ${count}` },
  { by: 'distance', falling: false, title: 'Nearest', words: (count) => `${count} away` },
  { by: 'distance', falling: true, title: 'Farthest', words: (count) => `${count} away` },
];
const MOST_LEADERS = 5; // of a list; where there is little room, the style shows three
const FEWEST_LEADERS = 3;

/** The measures that a part's heads have: distances need one text, repeats its tokens. */
export function measuresOf({ crosses, grid, matches }) {
  const without = new Set([
    ...(crosses || grid ? ['within', 'distance'] : []),
    ...(crosses || !matches ? ['induction', 'previous', 'duplicate'] : []),
  ]);
  return Object.keys(HEAD_MEASURES).filter((name) => !without.has(name));
}

/** Heads by a measure, or by layer and number. */
export function sortedHeads(heads, { by, falling }) {
  const sign = falling ? -1 : 1,
    place = (a, b) => a.layer - b.layer || a.head - b.head;
  if (by === 'head') return [...heads].sort((a, b) => sign * place(a, b));
  return [...heads].sort((a, b) => sign * (a[by] - b[by]) || place(a, b));
}

/** One list for each ranking, once there is a head; `units` is what one item is called, and several. `chosen` tells whether a head is the chosen one. */
export function rankingsView(heads, part, units, chosen) {
  if (!heads.length) return html.p({ class: 'rank cap' }, 'What heads do is listed here after the first head.');
  const known = measuresOf(part);
  const lists = RANKINGS.filter(({ by }) => known.includes(by)).map((ranking) => {
    const { by, falling, words = String } = ranking,
      { printer } = HEAD_MEASURES[by],
      title = ranking.title ?? HEAD_MEASURES[by].title;
    const leaders = sortedHeads(heads, ranking),
      most = printer === shares ? 1 : Math.max(...leaders.map((head) => head[by]), 1e-9),
      first = leaders.slice(0, MOST_LEADERS),
      print = printer(first.map((head) => head[by]));
    const lines = first.map((head) => ({
      head,
      part: head[by] / most,
      text: words(print(head[by])),
      on: chosen(head),
    }));
    const more = leaders.length > FEWEST_LEADERS ? { by, falling, count: leaders.length } : null;
    return headList({ name: `${by} ${falling ? 'most' : 'least'}`, title, said: measureSaid(by, units), lines, more });
  });
  const untold = !part.matches && !part.crosses && !part.grid;
  const note = 'Which tokens are alike is not known here, so what repeats is not told.';
  return [lists, untold && html.p({ class: 'rank cap' }, note)];
}

/** A list of heads with bars: `lines` have a head, its part of a bar's length, a text, and whether it is chosen; one
 * that `isPair` has the number of the chosen pair. */
export function headList({ name, title, said, lines, more = null, none = '' }) {
  const heading = [title]
    .flat()
    .map((part) => (part ? (part.textContent ?? part) : ''))
    .join('');
  return html.section(
    { class: 'rank', 'data-key': name },
    html.div(
      { class: 'rankhead' },
      html.h3({ title: heading }, title),
      more &&
        html.button(
          { class: 'link', tabindex: -1, 'data-all': more.by, 'data-falling': String(more.falling) },
          `all ${whole(more.count)}`,
        ),
    ),
    said && html.p({ class: 'cap' }, said),
    lines.length
      ? html.ol(
          null,
          lines.map((line, at) =>
            html.li({ 'data-key': at, class: line.on ? 'on' : null }, headLine(line, heading, at)),
          ),
        )
      : none && html.p({ class: 'none' }, none),
  );
}

function headLine({ head, part, text, word, on, isPair, pair }, heading, at) {
  const about = `${heading[0].toLowerCase()}${heading.slice(1)}${word ? ':' : ','}`;
  return html.button(
    {
      'data-layer': head.layer,
      'data-head': head.head,
      'data-row': pair?.row,
      'data-column': pair?.column,
      'aria-current': on ? 'true' : null,
      tabindex: at ? -1 : 0,
    },
    html.span({ class: 'unseen' }, 'head'),
    html.span({ class: 'hd' }, `${head.layer}.${head.head}`),
    html.span({ class: 'unseen' }, about),
    word
      ? html.span({ class: 'word', title: word }, word)
      : svg.svg(
          { viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
          svg.rect({ class: 'trackb', width: 100, height: 6 }),
          svg.rect({ class: 'w14', width: (100 * part).toFixed(1), height: 6 }),
        ),
    html.span({ class: isPair ? 'weight pairs' : 'weight' }, text),
  );
}

/** Each list is one stop of the Tab key, and arrow keys lead through it; returns whether it was such a key. */
export function movedInList(button, key) {
  const stops = [...button.closest('.rank').querySelectorAll('li button, .link')].filter((one) => one.offsetParent);
  stops.sort((a, b) => a.matches('.link') - b.matches('.link')); // the link to all of them comes last
  const at = stops.indexOf(button);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: stops.length - 1 }[key];
  if (to === undefined) return false;
  stops[Math.max(0, Math.min(stops.length - 1, to))].focus();
  return true;
}

/** A head's numbers in a sentence. */
export function headSentence(head, part, [, many]) {
  const known = measuresOf(part),
    share = (weight) => percent(weight ?? 0).replaceAll(' ', NBSP),
    count = (value) => countsOf([value])(value);
  const more = {
    previous: () => `${share(head.previous)} one back`,
    induction: () => `${share(head.induction)} continues a repeat`,
    duplicate: () => `${share(head.duplicate)} on the same again`,
    distance: () => `${count(head.distance)} away on average`,
  };
  return [
    `as if spread over ${count(head.effective)} ${many}`,
    `${share(head.first)} on the first`,
    ...Object.keys(more)
      .filter((name) => known.includes(name))
      .map((name) => more[name]()),
  ].join(', ');
}
