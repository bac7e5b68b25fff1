// A slider over generated tokens: each step is the row that the next token was chosen from.

import { draw, html } from '../dom.js';
import { whole } from '../numbers.js';
import { joinedTokens, shownToken } from './tokens.js';

const BEFORE = 6; // tokens of the text
const AROUND = 6; // steps on each side of the chosen one

/** The generation's part of the text pane; `go` is called with a row. */
export function makeGeneration(go) {
  const element = html.div({ class: 'gen' });
  let ends = []; // the last row of each step

  element.addEventListener('input', ({ target }) => go(ends[Number(target.value)]));
  element.addEventListener('click', (event) => {
    const step = event.target.closest('[data-step]')?.dataset.step;
    if (step !== undefined && ends[step] !== undefined) go(ends[step]);
  });

  return {
    element,
    update(view) {
      const { steps } = view.part;
      element.hidden = steps.length < 2;
      if (element.hidden) return;
      let sum = 0;
      ends = steps.map((count) => (sum += count) - 1);
      const now = nearest(ends, view.row);
      draw(element, sliderView(view, ends, now));
      element.querySelector('input').value = now;
    },
  };
}

/** The step whose row is nearest to a row. */
function nearest(ends, row) {
  return ends.reduce((best, end, step) => (Math.abs(end - row) < Math.abs(ends[best] - row) ? step : best), 0);
}

function sliderView({ names, row }, ends, now) {
  const last = ends.length - 1,
    exact = ends[now] === row;
  const first = Math.max(0, Math.min(now - AROUND, last - 2 * AROUND)),
    behind = Math.min(last, first + 2 * AROUND);
  const start = ends[first] + 1,
    before = joinedTokens(names.queries.slice(Math.max(0, start - BEFORE), start), false).trimStart();
  const made = [];
  for (let step = first; step <= behind; step += 1) {
    const name = names.queries[ends[step] + 1],
      { text } = step === last ? { text: '…' } : shownToken(name);
    made.push(
      html.button(
        {
          class: exact && step === now ? 'on' : null,
          'data-step': step,
          'data-key': step,
          tabindex: -1,
          title:
            step === last
              ? 'The last token was not fed back, so it is not among the rows'
              : `step ${step + 1}, row ${whole(ends[step])}`,
        },
        text,
      ),
    );
  }
  return [
    html.h2(null, 'Generation'),
    html.div(
      { class: 'steps', role: 'group', 'aria-label': 'Step' },
      html.button({ class: 'quiet icon', 'aria-label': 'Step before', 'data-step': now - 1, disabled: !now }, '‹'),
      html.input({
        type: 'range',
        min: 0,
        max: last,
        value: now,
        'aria-label': 'Step',
        'aria-valuetext': `step ${now + 1} of ${last + 1}`,
      }),
      html.button(
        { class: 'quiet icon', 'aria-label': 'Next step', 'data-step': now + 1, disabled: now === last },
        '›',
      ),
    ),
    html.p({ class: 'made word' }, html.span(null, `… ${before}`), made),
    html.span(
      { class: 'cap' },
      exact ? `step ${now + 1} of ${last + 1}, row ${whole(row)}` : `row ${whole(row)}: nothing was chosen from it`,
    ),
  ];
}
