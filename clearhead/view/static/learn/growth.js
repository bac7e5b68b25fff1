// Two dialogs: how cost grows with length, and exercises on the reader's numbers.

import { draw, html } from '../dom.js';
import { whole } from '../numbers.js';

/** The cost of attention and of a recurrent network as a text grows. */
export function growthView(costs) {
  return [
    html.h2({ id: 'growth-title' }, 'As the text grows'),
    html.p(
      null,
      'Every item looks at every earlier one, so twice the length is about four times the work. A recurrent network costs n, but each of its steps waits for the one before, and all it has read must fit one vector.',
    ),
    html.div(
      { class: 'frame', tabindex: 0, role: 'region', 'aria-label': 'Costs' },
      html.table(
        { class: 'costs' },
        html.caption(null, `Multiply-adds, for vectors of ${costs.dim} numbers`),
        html.tr(
          null,
          ['items', 'pairs', 'attention', 'recurrent', 'one item more, cached'].map((name) =>
            html.th({ scope: 'col' }, name),
          ),
        ),
        costs.rows.map((row) =>
          html.tr(
            null,
            html.th({ scope: 'row' }, whole(row.n)),
            [(row.n * (row.n + 1)) / 2, row.attention, row.recurrent, row.attention_more].map((n) =>
              html.td(null, whole(n)),
            ),
          ),
        ),
      ),
    ),
    html.p(
      { class: 'note' },
      'A cache keeps the keys and values: one more item then costs its own row. A window, so that a word sees only the last few, makes the work grow with n: that is sparse attention.',
    ),
  ];
}

const STEPS = ['weighted sum of the vectors', 'softmax: exponentials over their total', 'scores: dot products'];
const ORDER = [2, 1, 0];

/** Steps to put in order, then questions with the reader's numbers. */
export function exerciseView(exercise, act) {
  const { placed, questions, given } = exercise;
  const done = placed.length === STEPS.length,
    right = done && placed.every((step, at) => step === ORDER[at]);
  return [
    html.h2({ id: 'exercise-title' }, 'Put the steps in order'),
    html.ol(
      { class: 'placed' },
      placed.map((step) => html.li(null, STEPS[step])),
    ),
    html.div(
      { class: 'opts' },
      STEPS.map((name, step) => (placed.includes(step) ? null : html.button({ 'data-place': step }, name))),
    ),
    done
      ? html.p(
          { role: 'status' },
          html.strong(null, right ? 'Right. ' : 'Not in this order. '),
          'Scores first: weights come from how alike items are. Then softmax, which makes positive weights that add up to 1. Then the sum. ',
          html.button({ class: 'link', 'data-place': 'again' }, 'Again'),
        )
      : null,
    html.p(
      { class: 'note' },
      'The questions below are about your items in the first approach: each is query, key and value in one, without scale, positions or window.',
    ),
    (questions ?? []).slice(1).map((question, at) => quizQuestion(question, at + 1, given[at + 1])),
    act ?? null,
  ];
}

function quizQuestion({ text, options, answer, why }, at, chosen) {
  const right = answer.charCodeAt(0) - 97;
  return html.section(
    { class: 'quiz' },
    html.h2(null, text),
    html.div(
      { class: 'opts' },
      options.map((option, k) =>
        html.button(
          {
            class: chosen === k && k === right ? 'correct' : null,
            'aria-pressed': chosen === k ? 'true' : null,
            'data-quiz': `${at},${k}`,
          },
          option,
        ),
      ),
    ),
    chosen === undefined
      ? null
      : html.p(
          { role: 'status', class: 'reply' },
          html.strong(null, chosen === right ? 'Right. ' : `It is “${options[right]}”. `),
          why,
        ),
  );
}

/** Open one of the dialogs. */
export function openWindow(name, ...content) {
  const dialog = document.getElementById(name);
  draw(
    dialog,
    html.form({ method: 'dialog' }, html.button({ class: 'quiet icon', 'aria-label': 'Close' }, '×')),
    ...content,
  );
  if (!dialog.open) dialog.showModal();
}
