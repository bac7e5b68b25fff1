// The guided path: ten steps for the first visit, which can be left and resumed at any time.

import { PATH } from './course.js';
import { html } from '../dom.js';

export function pathView(state) {
  if (!state.step) return [];
  const { title, say } = PATH[state.step - 1];
  return html.nav(
    { class: 'path', 'aria-label': 'Guided path' },
    html.p(null, html.strong(null, title), ' ', html.span({ class: 'say' }, say)),
    html.ol(
      null,
      PATH.map((step, at) =>
        html.li(
          null,
          html.button(
            {
              class: at + 1 < state.step ? 'done' : null,
              'aria-current': at + 1 === state.step ? 'step' : null,
              title: step.title,
              'data-do': 'step',
              'data-with': at + 1,
            },
            html.span({ class: 'unseen' }, 'Step '),
            String(at + 1),
            html.span({ class: 'unseen' }, `: ${step.title}`),
          ),
        ),
      ),
    ),
    html.div(
      { class: 'go' },
      html.button(
        { class: 'quiet', 'data-do': 'step', 'data-with': Math.max(1, state.step - 1), disabled: state.step === 1 },
        'Back',
      ),
      state.step < PATH.length
        ? html.button({ class: 'main', 'data-do': 'step', 'data-with': state.step + 1 }, 'Next')
        : html.button({ class: 'main', 'data-do': 'leave' }, 'Done'),
      html.button({ class: 'quiet leave', 'data-do': 'leave' }, 'Leave the path'),
    ),
  );
}
