// What heads do: measures of a head, each with a sentence that says what it is, and the heads that lead in each.

import { html, svg } from '../dom.js';
import { fixed, percent, whole } from '../numbers.js';

const leaderCount = (value) => (value < 10 ? fixed(value, 1) : whole(Math.round(value)));
const nats = (value) => fixed(value, 2);

/** Measures by the name that they have in an answer: a heading, what it is, and how its numbers are printed. */
export const HEAD_MEASURES = {
  induction: { title: 'Continues a repeat', said: 'Weight on what followed the same token.', print: percent },
  previous: { title: 'Looks one back', said: 'Weight on the token just before.', print: percent },
  duplicate: { title: 'Finds itself again', said: 'Weight on the same token elsewhere.', print: percent },
  first: { title: 'Rests on the first', said: 'Weight on the very first token.', print: percent },
  within: { title: 'Stays near', said: 'Weight within 64 tokens.', print: percent },
  effective: { title: 'Width', said: 'As if spread evenly over so many tokens.', print: leaderCount },
  distance: { title: 'Distance', said: 'How far away its weight lies.', print: leaderCount },
  off_first: { title: 'Strongest', said: 'The largest weight on any token but the first.', print: percent },
  entropy: { title: 'Entropy', said: 'How evenly weight is spread, in nats; 0 is all on one token.', print: nats },
};

/** The lists beside the sheet, in order: a measure, and whether its largest or its smallest values lead. */
export const RANKINGS = [
  { by: 'induction', falling: true },
  { by: 'previous', falling: true },
  { by: 'first', falling: true },
  { by: 'effective', falling: true, title: 'Widest', print: (value) => `as if ${leaderCount(value)}` },
  { by: 'duplicate', falling: true },
  { by: 'effective', falling: false, title: 'Sharpest', print: (value) => `as if ${leaderCount(value)}` },
  { by: 'distance', falling: false, title: 'Nearest', print: (value) => `${leaderCount(value)} away` },
  { by: 'distance', falling: true, title: 'Farthest', print: (value) => `${leaderCount(value)} away` },
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

/** One list for each ranking. `chosen` tells whether a head is the chosen one. */
export function rankingsView(heads, part, chosen) {
  const known = measuresOf(part);
  const lists = RANKINGS.filter(({ by }) => known.includes(by)).map((ranking) => {
    const { by, falling, title = HEAD_MEASURES[by].title, print = HEAD_MEASURES[by].print } = ranking;
    const leaders = sortedHeads(heads, ranking),
      most = print === percent ? 1 : Math.max(...leaders.map((head) => head[by]), 1e-9);
    const lines = leaders
      .slice(0, MOST_LEADERS)
      .map((head) => ({ head, part: head[by] / most, text: print(head[by]), on: chosen(head) }));
    const more = leaders.length > FEWEST_LEADERS ? { by, falling, count: leaders.length } : null;
    return headList({ name: `${by} ${falling ? 'most' : 'least'}`, title, said: HEAD_MEASURES[by].said, lines, more });
  });
  const untold = !part.matches && !part.crosses && !part.grid;
  const note = 'Which tokens are alike is not known here, so what repeats is not told.';
  return [lists, untold && html.p({ class: 'rank cap' }, note)];
}

/** A list of heads with bars: `lines` have a head, its part of a bar's length, a text, and whether it is chosen. */
export function headList({ name, title, said, lines, more = null, none = '' }) {
  return html.section(
    { class: 'rank', 'data-key': name },
    html.div(
      { class: 'rankhead' },
      html.h3(null, title),
      more &&
        html.button(
          { class: 'link', 'data-all': more.by, 'data-falling': String(more.falling) },
          `all ${whole(more.count)}`,
        ),
    ),
    said && html.p({ class: 'cap' }, said),
    lines.length
      ? html.ol(
          null,
          lines.map((line) => html.li({ class: line.on ? 'on' : null }, headLine(line))),
        )
      : none && html.p({ class: 'none' }, none),
  );
}

function headLine({ head, part, text, word, on, pair }) {
  return html.button(
    {
      'data-layer': head.layer,
      'data-head': head.head,
      'data-row': pair?.row,
      'data-column': pair?.column,
      'aria-current': on ? 'true' : null,
    },
    html.span({ class: 'hd' }, `${head.layer}.${head.head}`),
    word
      ? html.span({ class: 'word' }, word)
      : svg.svg(
          { viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
          svg.rect({ class: 'trackb', width: 100, height: 6 }),
          svg.rect({ class: 'w14', width: (100 * part).toFixed(1), height: 6 }),
        ),
    html.span(null, text),
  );
}

/** A head's numbers in a sentence; `many` is what its keys are called. */
export function headSentence(head, part, many) {
  const known = measuresOf(part),
    said = [`as if spread over ${leaderCount(head.effective)} ${many}`, `${percent(head.first)} on the first`];
  const more = {
    previous: `${percent(head.previous ?? 0)} one back`,
    induction: `${percent(head.induction ?? 0)} continues a repeat`,
    duplicate: `${percent(head.duplicate ?? 0)} on the same again`,
    distance: `${leaderCount(head.distance)} away on average`,
  };
  return [
    ...said,
    ...Object.keys(more)
      .filter((name) => known.includes(name))
      .map((name) => more[name]),
  ].join(', ');
}
