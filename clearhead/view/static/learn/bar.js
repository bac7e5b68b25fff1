// Learn's bar: undo and redo, the link, exports, the theme.

import { openedAt, writes } from '../ask.js';
import { appearanceMenu } from '../appearance.js';
import { icon, menu, REDO, screensNav, UNDO } from '../controls.js';
import { html } from '../dom.js';

const EXPORTS = [
  ['png', 'Picture, PNG'],
  ['svg', 'Drawing, SVG'],
  ['csv', 'Numbers, CSV'],
  ['html', 'This page as one file, HTML'],
  ['link', 'Copy link'],
];
export function barView(state, { past, future, copied }) {
  return [
    html.h1({ class: 'unseen' }, 'Learn: self-attention, one sum at a time'),
    html.span({ class: 'mark' }, 'clearhead'),
    screensNav('Learn', { id: 'home' }),
    html.span({ class: 'room' }),
    html.div(
      { class: 'tools' },
      state.step ? null : html.button({ class: 'quiet wide', 'data-do': 'step', 'data-with': 1 }, 'Guided path'),
      html.button(
        { class: 'quiet icon', 'data-go': 'undo', 'aria-label': 'Undo', title: 'Undo (Ctrl Z)', disabled: !past },
        icon(UNDO),
      ),
      html.button(
        {
          class: 'quiet icon',
          'data-go': 'redo',
          'aria-label': 'Redo',
          title: 'Redo (Ctrl Shift Z)',
          disabled: !future,
        },
        icon(REDO),
      ),
      openedAt === null
        ? html.button({ class: 'quiet wide', 'data-copy': 'link' }, copied ? 'Copied' : 'Copy link')
        : null,
      menu(
        'Export',
        'Export',
        EXPORTS.filter(([kind]) => !(kind === 'html' && !writes) && !(kind === 'link' && openedAt !== null)).map(
          ([kind, name]) => html.button({ 'data-export': kind }, name),
        ),
      ),
      appearanceMenu(),
    ),
  ];
}
