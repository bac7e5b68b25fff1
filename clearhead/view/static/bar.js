// The bar: undo and redo, the link, exports, the theme.

import { alone } from './ask.js';
import { html, svg } from './dom.js';

const APPEARANCE = [
  ['theme:', 'As the system'],
  ['theme:light', 'Light'],
  ['theme:dark', 'Dark'],
  ['contrast:more', 'High contrast'],
];
const EXPORTS = [
  ['png', 'Picture, PNG'],
  ['svg', 'Drawing, SVG'],
  ['csv', 'Numbers, CSV'],
  ['html', 'This page as one file, HTML'],
  ['link', 'Copy link'],
];
const UNDO = 'M3 6h6.5a3.5 3.5 0 0 1 0 7H6M3 6l3-3M3 6l3 3',
  REDO = 'M13 6H6.5a3.5 3.5 0 0 0 0 7H10M13 6l-3-3M13 6l-3 3';

export function barView(state, { past, future, copied }) {
  const icon = (path) => svg.svg({ viewBox: '0 0 16 16', 'aria-hidden': 'true' }, svg.path({ d: path }));
  return [
    html.h1({ class: 'unseen' }, 'Learn: self-attention, one sum at a time'),
    html.span({ class: 'mark' }, 'clearhead'),
    html.nav({ 'aria-label': 'Screens' }, html.a({ href: '#', 'aria-current': 'page', id: 'home' }, 'Learn')),
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
      html.button({ class: 'quiet wide', 'data-copy': 'link' }, copied ? 'Copied' : 'Copy link'),
      menu(
        'Export',
        'Export',
        EXPORTS.filter(([kind]) => !(alone && kind === 'html')).map(([kind, name]) =>
          html.button({ 'data-export': kind }, name),
        ),
      ),
      menu(
        svg.svg(
          { viewBox: '0 0 16 16', 'aria-hidden': 'true' },
          svg.circle({ cx: 8, cy: 8, r: 5.5 }),
          svg.path({ class: 'solid', d: 'M8 2.5a5.5 5.5 0 0 1 0 11z' }),
        ),
        'Appearance',
        APPEARANCE.map(([to, name]) => html.button({ 'data-set': to }, name)),
        true,
      ),
    ),
  ];
}

function menu(face, name, entries, icon = false) {
  return html.details(
    { class: 'menu' },
    html.summary({ class: icon ? 'quiet icon' : 'quiet', 'aria-label': icon ? name : null }, face),
    html.ul(
      null,
      entries.map((entry) => html.li(null, entry)),
    ),
  );
}

/** Light, dark or high contrast; the system's theme by default. */
export function appear(told) {
  const [key, value] = told.split(':');
  const { dataset } = document.documentElement;
  if (key === 'theme') {
    delete dataset.contrast;
    if (value) dataset.theme = value;
    else delete dataset.theme;
  } else dataset.contrast = value;
  remember(told);
}

/** Store the choice for the next visit, if the browser allows it. */
function remember(told) {
  try {
    localStorage.setItem('appearance', told);
  } catch {
    // a page from disk, or a browser without storage
  }
}

/** The theme of the last visit. */
export function appearAsBefore() {
  try {
    appear(localStorage.getItem('appearance') ?? 'theme:');
  } catch {
    // nothing was stored
  }
}
