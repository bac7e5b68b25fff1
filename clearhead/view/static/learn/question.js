// Questions: the one asked before a score of 0 is explained, and the course's eight.

import { sum } from './attention.js';
import { QUESTIONS } from './course.js';
import { html } from '../dom.js';
import { shownName } from './items.js';
import { fixed, number, percent } from '../numbers.js';

const GUESSES = ['none of it', 'some of it', 'half of it'];

/** Whether the question about a score of 0 is open, with its answer hidden. */
export function isOpen(state, p) {
  return p.zero && !state.told && !state.learned;
}

export function questionView(state, p, trial, said) {
  if (state.formula !== 'right') return [consequenceView(state, said), eightView(state)];
  if (p.zero && !state.learned && (!state.told || state.guess !== null)) return zeroView(state, p, trial);
  return eightView(state);
}

/** The eight questions, one at a time; on the path, each where it has been shown. */
function eightView(state) {
  if (state.question === null) {
    return html.p(
      { class: 'note', 'data-key': 'eight' },
      html.button({ class: 'link', 'data-do': 'questions' }, 'Eight questions'),
    );
  }
  const { ask, options, right, why, hint } = QUESTIONS[state.question],
    { chosen } = state;
  return html.section(
    { class: `quiz${chosen === null ? '' : ' answered'}`, 'aria-labelledby': 'q8', 'data-key': `q${state.question}` },
    html.h2({ id: 'q8' }, html.span({ class: 'tag' }, `Question ${state.question + 1} of 8`), ' ', ask),
    html.div(
      { class: 'opts' },
      options.map((text, at) => option('answer', at, text, chosen, right)),
    ),
    chosen === null
      ? null
      : html.div(
          { class: 'reply', role: 'status' },
          html.p(null, html.strong(null, chosen === right ? 'Right. ' : 'Not quite. '), chosen === right ? why : hint),
          html.p(
            null,
            html.button(
              { class: 'link', 'data-do': 'nextQuestion' },
              state.question === 7 ? 'Back to question 1' : 'Next question',
            ),
          ),
        ),
  );
}

function option(action, at, text, chosen, right) {
  const picked = chosen === at;
  return html.button(
    {
      class: picked ? (at === right ? 'correct' : 'wrong') : null,
      'aria-pressed': picked ? 'true' : null,
      'data-do': action,
      'data-with': at,
    },
    text,
  );
}

function zeroView(state, p, trial) {
  const me = shownName(p.labels[p.row]),
    it = shownName(p.labels[p.column]),
    row = p.shown.rows[p.row];
  const nothing = p.q[p.row].every((x) => !x) || p.found[p.column].every((x) => !x);
  const both = p.q[p.row].every((x) => !x) && p.found[p.column].every((x) => !x);
  const why = nothing
    ? both
      ? 'Both are zero vectors.'
      : 'One of the two is the zero vector.'
    : `${p.alike ? '' : 'The query of '}${me} and ${p.alike ? '' : 'the key of '}${it} are at right angles.`;
  const answered = state.guess !== null,
    weight = row.weights[p.column];
  const right = Math.abs(weight - 0.5) < 1e-12 ? 2 : 1;
  return html.section(
    { class: `quiz open${answered ? ' answered' : ''}`, 'aria-labelledby': 'qz', 'data-key': 'zero' },
    html.p({ class: 'tag' }, 'Before you look'),
    html.h2({ id: 'qz', tabindex: -1 }, `${why} Their score is 0. How much of ${it} goes into the new ${me}?`),
    html.div(
      { class: 'opts' },
      GUESSES.map((text, at) => option('guess', at, text, state.guess, right)),
    ),
    answered
      ? reply(p, trial, right, state.guess)
      : html.p(
          { class: 'hint' },
          'Nothing is counted. The numbers appear when you choose. ',
          html.button({ class: 'link', 'data-do': 'tell' }, 'Show it'),
        ),
  );
}

function reply(p, trial, right, guess) {
  const row = p.shown.rows[p.row],
    weight = row.weights[p.column],
    e = row.exponentials[p.column];
  const score = trial ?? 0,
    others = row.shift ? 0 : sum(p.counted.filter((j) => j !== p.column).map((j) => row.exponentials[j]));
  const other = Math.exp(score),
    share = other / (others + other);
  const size = weight > 0.5 ? 'Most' : right === 2 ? 'Half' : weight < 0.01 ? 'Little' : 'Some';
  const zero = row.shift
    ? 'its exponential is not 0 either'
    : `its exponential is 1, a whole unit of a total of ${number(row.total)}`;
  return html.div(
    { class: 'reply', role: 'status' },
    html.p(
      null,
      html.strong(null, `${size}: ${percent(weight)}. `),
      guess === 0 ? '' : guess === right ? '' : 'Close. ',
      `A score of 0 is not a weight of 0: ${zero}.`,
    ),
    row.shift
      ? null
      : html.label(
          { class: 'slide' },
          'If the score were ',
          html.output(null, fixed(score, 1)),
          html.input({ type: 'range', id: 'trial', min: -10, max: 10, step: 0.1, value: score }),
        ),
    row.shift
      ? null
      : html.p(
          { class: 'then' },
          'e',
          html.sup(null, fixed(score, 1)),
          ` = ${number(other)}, weight ${percent(share)}. `,
          sized(share),
        ),
    html.p(
      { class: 'then' },
      'Exactly nothing comes only from being hidden, from a score of −∞, or from a number too small for the computer to hold.',
      e === 0 ? ' Here it is too small.' : '',
    ),
  );
}

function sized(share) {
  return share < 0.01 ? 'Small, still there.' : share < 0.2 ? 'Some.' : share > 0.5 ? 'Most.' : '';
}

function consequenceView(state, said) {
  return html.section(
    { class: 'quiz open', 'aria-labelledby': 'qz', 'data-key': 'formula' },
    html.p({ class: 'tag' }, said?.formula ? `Another formula: ${said.formula}` : 'Another formula'),
    html.h2({ id: 'qz', tabindex: -1 }, said?.error ?? said?.consequence ?? '…'),
    html.p(
      { class: 'hint' },
      html.button({ class: 'link', 'data-do': 'formula', 'data-with': 'right' }, 'Back to the right formula'),
    ),
  );
}
