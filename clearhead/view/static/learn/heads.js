// The strip at the bottom: learned heads on the same sentence, and the next token with and without one.

import { html, svg } from '../dom.js';
import { percent } from '../numbers.js';
import { shade } from './triangle.js';

export function learnedView(state, learned) {
  if (!learned) return html.div({ class: 'lead' }, html.h2({ id: 'lh' }, 'Now a learned head'), html.p(null, '…'));
  const off = learned.heads.find((one) => one.head === (state.learned ?? '3.3')) ?? learned.heads[2];
  return [
    html.div(
      { class: 'lead' },
      html.h2({ id: 'lh' }, 'Now a learned head'),
      html.p(
        null,
        'Learned ',
        html.i(null, 'q'),
        ', ',
        html.i(null, 'k'),
        ', ',
        html.i(null, 'v'),
        ' on ',
        html.q({ class: 'word' }, learned.text),
        '. Beside: head · its mean weight there.',
      ),
    ),
    html.ul(
      { class: 'heads' },
      learned.heads.map((one) =>
        html.li(
          null,
          html.button(
            {
              class: 'head',
              'aria-pressed': String(one.head === state.learned),
              'data-do': 'learned',
              'data-with': one.head,
            },
            thumbnail(one.weights),
            html.span({ class: 'hn' }, one.kind),
            html.span({ class: 'hs' }, `${one.head} · ${one.measure.replaceAll(' ', '\u00a0')}`),
          ),
        ),
      ),
    ),
    nextPiece(learned.guesses, off),
  ];
}

function thumbnail(weights) {
  const side = weights.length * 5;
  return svg.svg(
    { viewBox: `0 0 ${side} ${side}`, 'aria-hidden': 'true' },
    weights.map((row, i) =>
      row.map((weight, j) => svg.rect({ class: `w${shade(weight)}`, x: j * 5, y: i * 5, width: 4.5, height: 4.5 })),
    ),
  );
}

function nextPiece(guesses, off) {
  const largest = Math.max(...guesses.map(({ chance }) => chance), ...off.without);
  const bar = (share, y, kind) => svg.rect({ class: kind, x: 0, y, width: `${(100 * share) / largest}%`, height: 7 });
  return html.table(
    { class: 'next' },
    html.caption(
      null,
      'Next piece',
      html.span(
        { class: 'key' },
        html.i({ class: 'before' }),
        'all heads',
        html.i({ class: 'after' }),
        `without ${off.head}`,
      ),
    ),
    guesses
      .slice(0, 4)
      .map(({ name, chance }, at) =>
        html.tr(
          null,
          html.th({ scope: 'row', class: 'word' }, name),
          html.td(
            { class: 'bars' },
            svg.svg(
              { viewBox: '0 0 100 18', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
              bar(chance, 1, 'before'),
              bar(off.without[at], 10, 'after'),
            ),
          ),
          html.td(null, percent(chance)),
          html.td({ class: 'aft' }, percent(off.without[at])),
        ),
      ),
  );
}
