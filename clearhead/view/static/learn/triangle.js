// The middle: which item looks at which, the chosen row in all three stages, and the mixture.

import { sum } from './attention.js';
import { html, svg } from '../dom.js';
import { hue, shownName } from './items.js';
import { number, percent, share } from '../numbers.js';

const STAGES = [
  ['scores', 'Scores'],
  ['exponentials', 'Exponentials'],
  ['weights', 'Weights'],
];
const SHADES = 20;

/** The shade of a weight, from 0 to 20. */
export function shade(weight) {
  return Math.round(Math.min(1, Math.max(0, weight)) * SHADES);
}

/** A cell's text. */
export function shown(p, stage, i, j, narrow = p.narrow) {
  const row = p.shown.rows[i];
  if (stage === 'weights') return weightText(p, row.weights[j], narrow);
  return number(row[stage][j], narrow);
}

/** A weight as a share, or as a plain number under another formula. */
function weightText(p, weight, narrow = p.narrow) {
  return p.plainWeights ? number(weight, narrow) : share(weight, narrow);
}

export function triangleView(state, p, veiled) {
  const titles = {
    scores: caption(p),
    exponentials: 'e to the power of each score: positive, whatever the score',
    weights: ofWeights(state, p),
  };
  return html.section(
    { 'aria-labelledby': 'tr' },
    html.div(
      { class: 'headline' },
      html.h2({ id: 'tr' }, 'Who looks at whom'),
      headsPick(state, p),
      html.span(
        { class: 'seg', role: 'radiogroup', 'aria-label': 'What the triangle shows' },
        STAGES.map(([stage, name]) =>
          html.button(
            { role: 'radio', 'aria-checked': String(stage === state.show), 'data-do': 'show', 'data-with': stage },
            name,
          ),
        ),
      ),
    ),
    html.p({ class: 'cap' }, titles[state.show]),
    grid(state, p, veiled),
  );
}

/** A caption: what the weights are, and what a row adds up to. */
function ofWeights(state, p) {
  if (p.plainWeights) return 'what the altered formula puts in the place of weights';
  if (state.formula === 'mask-after-softmax')
    return 'each exponential divided by a total that counts what is hidden too';
  return `softmax: each exponential divided by its row’s total; a row adds up to 100 %${p.narrow ? ', printed without the sign' : ''}`;
}

function caption(p) {
  const [a, b] = p.letters,
    root = p.shown.scale === 1 ? '' : ' × scale';
  return [
    'how alike two vectors are: ',
    a,
    html.sub(null, 'i'),
    ' · ',
    b,
    html.sub(null, 'j'),
    root,
    `; all at once (${p.n},${p.d}) · (${p.d},${p.n}) → (${p.n},${p.n})`,
  ];
}

function headsPick(state, p) {
  if (p.heads === 1) return null;
  return html.span(
    { class: 'seg', role: 'radiogroup', 'aria-label': 'Which head is shown' },
    [...Array(p.heads).keys()].map((h) =>
      html.button(
        { role: 'radio', 'aria-checked': String(h === p.head), 'data-do': 'head', 'data-with': h },
        `head ${h + 1}`,
      ),
    ),
  );
}

function grid(state, p, veiled) {
  const names = { scores: 'Scores', exponentials: 'Exponentials', weights: 'Weights' };
  const hidden = p.shown.seen.some((row) => row.some((seen) => !seen));
  return html.div(
    { class: 'tri', role: 'grid', 'aria-label': names[state.show], 'aria-rowcount': p.n + 1, 'aria-colcount': p.n + 1 },
    html.div(
      { role: 'row', class: 'trow hrow' },
      html.span({ role: 'columnheader', class: 'corner' }, html.span({ class: 'unseen' }, 'looks at')),
      p.names.map((name, j) =>
        html.span(
          { role: 'columnheader', class: j === p.column ? 'ch it' : 'ch' },
          html.span({ class: 'word', title: name }, shownName(name)),
        ),
      ),
    ),
    p.names.map((name, i) =>
      html.div(
        { role: 'row', class: i === p.row ? 'trow me' : 'trow' },
        html.span(
          { role: 'rowheader', class: 'rh', 'data-do': 'rowOnly', 'data-with': i },
          html.span({ class: 'word', title: name }, shownName(name)),
        ),
        p.names.map((_, j) => cell(state, p, i, j, veiled)),
      ),
    ),
    hidden && p.n > 1 ? html.span({ class: 'laterlab', 'aria-hidden': 'true' }, 'later: not seen') : null,
  );
}

function cell(state, p, i, j, veiled) {
  if (!p.shown.seen[i][j]) {
    return html.span({
      role: 'gridcell',
      class: j > i ? 'later' : 'later far',
      'aria-label': j > i ? 'later: not seen' : 'too far back: not seen',
    });
  }
  const on = i === p.row && j === p.column,
    hide = veiled && state.show !== 'scores';
  const weight = p.shown.rows[i].weights[j];
  const colour = state.show !== 'weights' || hide ? '' : ` w${shade(weight)}`;
  return html.span(
    {
      role: 'gridcell',
      class: `c${colour}${on ? ' on' : ''}`,
      tabindex: on ? 0 : -1,
      'aria-selected': on ? 'true' : 'false',
      'data-do': 'choose',
      'data-with': `${i},${j}`,
    },
    hide ? html.span({ class: 'veil' }, '?') : html.span(null, shown(p, state.show, i, j)),
  );
}

/** Whether scores are divided by √d with d > 1. */
function isRooted(p) {
  return p.d > 1 && Math.abs(p.shown.scale * Math.sqrt(p.d) - 1) < 1e-12;
}

export function ledgerView(state, p, veiled) {
  const row = p.shown.rows[p.row],
    at = [...Array(p.n).keys()].map((j) => (p.shown.seen[p.row][j] ? j : null));
  const [a, b] = p.letters,
    i = p.row + 1;
  const stages = [
    [
      's1',
      'score',
      isRooted(p) ? [a, '·', b, `÷√${p.d}`] : [a, html.sub(null, String(i)), '·', b, html.sub(null, 'j')],
      (j) => number(row.scores[j], p.narrow),
      '',
    ],
    [
      's2',
      'exponential',
      ['e', html.sup(null, row.shift ? 's−max' : 's')],
      (j) => number(row.exponentials[j], p.narrow),
      number(row.total),
    ],
    [
      's3',
      p.plainWeights ? 'in its place' : 'weight',
      p.plainWeights ? '' : ['÷ total'],
      (j) => weightText(p, row.weights[j]),
      weightText(p, sum(row.weights), false),
    ],
  ];
  return html.section(
    { 'aria-labelledby': 'lg', class: 'ledgers' },
    html.h2(
      { id: 'lg' },
      html.span({ class: 'word' }, shownName(p.names[p.row])),
      ' looks back: one row, three stages',
    ),
    html.div(
      { class: 'ledger', role: 'table', 'aria-label': 'The chosen row in all three stages' },
      html.div(
        { class: 'lrow lwords', role: 'row' },
        html.span({ class: 'lh', role: 'cell' }, html.span({ class: 'unseen' }, 'stage')),
        at.map((_, j) =>
          html.span(
            { role: 'columnheader', class: j === p.column ? 'lc it' : 'lc' },
            html.span({ class: 'word', title: p.names[j] }, shownName(p.names[j])),
          ),
        ),
        html.span({ class: 'lt', role: 'columnheader' }, 'total'),
      ),
      stages.map(([name, title, formula, text, total], stage) =>
        html.div(
          { class: `lrow ${name}`, role: 'row' },
          html.span({ class: 'lh', role: 'rowheader' }, html.b(null, title), ' ', html.span(null, formula)),
          at.map((j, place) => ledgerCell(p, j, place, stage, veiled, text)),
          html.span({ class: 'lt', role: 'cell' }, veiled && stage ? veil() : total),
        ),
      ),
    ),
    html.div(
      { class: 'stack' },
      html.span({ class: 'lh' }, html.b(null, 'mixture')),
      veiled
        ? html.span(
            { class: 'veiled' },
            'answer first, or ',
            html.button({ class: 'link', 'data-do': 'tell' }, 'show it'),
          )
        : p.plainWeights
          ? html.span({ class: 'note' }, mixtureNote(state))
          : mixture(p),
    ),
  );
}

function mixtureNote(state) {
  if (state.formula === 'no-values') return 'nothing is mixed: the weights themselves come out';
  return `no mixture: nothing keeps these ${state.formula === 'no-softmax' ? 'to a sum of 1' : 'from being negative, or above 1'}`;
}

function veil() {
  return html.span({ class: 'veil', title: 'Answer first' }, '?');
}

function ledgerCell(p, j, place, stage, veiled, text) {
  const on = place === p.column ? ' on' : '';
  if (j === null)
    return html.span(
      { role: 'cell', class: `lc unseen-item${on}` },
      html.span({ class: 'unseen' }, 'not seen'),
      html.span({ 'aria-hidden': 'true' }, '·'),
    );
  const colour = stage === 2 && !veiled ? ` w${shade(p.shown.rows[p.row].weights[j])}` : '';
  return html.span(
    { role: 'cell', class: `lc${on}${colour}`, 'data-do': 'choose', 'data-with': `${p.row},${place}` },
    veiled && stage ? veil() : text(j),
  );
}

function mixture(p) {
  const { weights } = p.shown.rows[p.row];
  const told = p.names
    .map((name, j) => [name, weights[j]])
    .filter(([, weight]) => weight > 0)
    .map(([name, weight]) => `${percent(weight)} ${name}`);
  let left = 0;
  return svg.svg(
    { class: 'stackbar', role: 'img', 'aria-label': `The new ${p.names[p.row]} is ${told.join(', ')}` },
    weights.map((weight, j) => {
      const from = left * 100,
        wide = weight * 100;
      left += weight;
      if (wide <= 0) return null;
      const name = shownName(p.names[j]),
        word = wide > 3 + name.length * 1.9;
      return svg.g(
        { class: `${hue(j)}${j === p.column ? ' on' : ''}` },
        svg.rect({ x: `${from.toFixed(3)}%`, width: `${wide.toFixed(3)}%`, height: '100%' }),
        wide > 3
          ? svg.text(
              {
                class: word ? null : 'n',
                x: `${(from + wide / 2).toFixed(3)}%`,
                y: '50%',
                dy: '.36em',
                'text-anchor': 'middle',
              },
              word ? name : String(j + 1),
            )
          : null,
      );
    }),
  );
}
