// Light or dark, and how much contrast: two choices that last until the next visit.

import { menu, menuChoice, menuGroup } from './controls.js';
import { html, svg } from './dom.js';
import { onNotebook } from './notebook.js';

const APPEARANCE = {
  theme: [
    ['', 'As the system'],
    ['light', 'Light'],
    ['dark', 'Dark'],
  ],
  contrast: [
    ['', 'As the system'],
    ['more', 'High'],
  ],
};
const APPEARANCE_NAMES = { theme: 'Theme', contrast: 'Contrast' };
const SYSTEM = ['(prefers-color-scheme: dark)', '(prefers-contrast: more)', '(forced-colors: active)'];
const [, MORE_CONTRAST] = SYSTEM;

export function appearanceMenu() {
  const face = svg.svg(
    { viewBox: '0 0 16 16', 'aria-hidden': 'true' },
    svg.circle({ cx: 8, cy: 8, r: 5.5 }),
    svg.path({ class: 'solid', d: 'M8 2.5a5.5 5.5 0 0 1 0 11z' }),
  );
  return menu(face, 'Appearance', appearanceChoices(), true);
}

/** Both choices as groups of a menu, those made marked. */
export function appearanceChoices() {
  const now = choicesMade();
  return Object.entries(APPEARANCE).map(([key, values]) =>
    menuGroup(
      APPEARANCE_NAMES[key],
      values.map(([value, name]) => menuChoice({ 'data-set': `${key}:${value}` }, name, now[key] === value)),
    ),
  );
}

/** What has been chosen: { theme, contrast }, '' for the system's. */
function choicesMade() {
  const { theme, asked } = document.documentElement.dataset;
  return { theme: theme ?? '', contrast: asked ?? '' };
}

/** Choose one of APPEARANCE, as `key:value`; the system's by default. */
export function appear(told) {
  const [key, value] = told.split(':');
  const { dataset } = document.documentElement;
  const name = key === 'contrast' ? 'asked' : 'theme';
  if (value) dataset[name] = value;
  else delete dataset[name];
  markContrast();
  remember();
  document.documentElement.dispatchEvent(new Event('appearance'));
}

/** Style sheets know high contrast by one mark, whoever asked for it. */
function markContrast() {
  const { dataset } = document.documentElement;
  if (dataset.asked || matchMedia(MORE_CONTRAST).matches) dataset.contrast = 'more';
  else delete dataset.contrast;
}

/** Call `changed` when colours change, by the menu or the system; returns how to stop that. */
export function watchAppearance(changed) {
  const sources = [...SYSTEM.map((query) => [matchMedia(query), 'change']), [document.documentElement, 'appearance']];
  for (const [source, event] of sources) source.addEventListener(event, changed);
  return () => {
    for (const [source, event] of sources) source.removeEventListener(event, changed);
  };
}

/** Store the choices for the next visit, if the browser allows it. */
function remember() {
  const { theme, contrast } = choicesMade();
  try {
    localStorage.setItem('appearance', `theme:${theme} contrast:${contrast}`);
  } catch {
    // a page from disk, or a browser without storage
  }
}

/** The choices of the last visit, or the theme of the notebook around the page. */
export function appearAsBefore() {
  onNotebook(({ theme }) => theme && appear(`theme:${theme}`));
  matchMedia(MORE_CONTRAST).addEventListener('change', markContrast);
  let told = null;
  try {
    told = localStorage.getItem('appearance');
  } catch {
    // nothing was stored
  }
  for (const choice of (told ?? 'theme:').split(' ')) appear(choice);
}
