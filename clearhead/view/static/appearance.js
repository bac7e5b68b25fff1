// Light, dark or high contrast: the menu, and the choice that lasts until the next visit.

import { menu } from './controls.js';
import { html, svg } from './dom.js';
import { onNotebook } from './notebook.js';

const APPEARANCE = [
  ['theme:', 'As the system'],
  ['theme:light', 'Light'],
  ['theme:dark', 'Dark'],
  ['contrast:more', 'High contrast'],
];
const SYSTEM = ['(prefers-color-scheme: dark)', '(prefers-contrast: more)', '(forced-colors: active)'];

export function appearanceMenu() {
  const face = svg.svg(
    { viewBox: '0 0 16 16', 'aria-hidden': 'true' },
    svg.circle({ cx: 8, cy: 8, r: 5.5 }),
    svg.path({ class: 'solid', d: 'M8 2.5a5.5 5.5 0 0 1 0 11z' }),
  );
  const entries = APPEARANCE.map(([to, name]) => html.button({ 'data-set': to }, name));
  return menu(face, 'Appearance', entries, true);
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
  document.documentElement.dispatchEvent(new Event('appearance'));
}

/** Call `changed` when colours change, by the menu or the system; returns how to stop that. */
export function watchAppearance(changed) {
  const sources = [...SYSTEM.map((query) => [matchMedia(query), 'change']), [document.documentElement, 'appearance']];
  for (const [source, event] of sources) source.addEventListener(event, changed);
  return () => {
    for (const [source, event] of sources) source.removeEventListener(event, changed);
  };
}

/** Store the choice for the next visit, if the browser allows it. */
function remember(told) {
  try {
    localStorage.setItem('appearance', told);
  } catch {
    // a page from disk, or a browser without storage
  }
}

/** The theme of the last visit, or of the notebook around the page. */
export function appearAsBefore() {
  onNotebook(({ theme }) => theme && appear(`theme:${theme}`));
  try {
    appear(localStorage.getItem('appearance') ?? 'theme:');
  } catch {
    // nothing was stored
  }
}
