// Controls that both screens have: icons and menus.

import { screens } from './ask.js';
import { html, svg } from './dom.js';

const FIRST_SCREENS = ['Learn', 'Read', 'Docs']; // a narrow bar has no room for more

export const UNDO = 'M3 6h6.5a3.5 3.5 0 0 1 0 7H6M3 6l3-3M3 6l3 3',
  REDO = 'M13 6H6.5a3.5 3.5 0 0 0 0 7H10M13 6l-3-3M13 6l-3 3',
  MORE = 'M2.5 4.5h11M2.5 8h11M2.5 11.5h11';

/** A line drawing in place of a word; its button is named by aria-label. */
export function icon(path) {
  return svg.svg({ viewBox: '0 0 16 16', 'aria-hidden': 'true' }, svg.path({ d: path }));
}

/** The screens, of which this page is one; `told` are attributes of its own entry. */
export function screensNav(here, told) {
  const entries = Object.entries(screens ?? { [here]: '#' }).map(([name, href]) =>
    name === here
      ? html.a({ href: '#', 'aria-current': 'page', ...told }, name)
      : html.a({ href, class: FIRST_SCREENS.includes(name) ? null : 'wide' }, name),
  );
  return html.nav({ 'aria-label': 'Screens' }, entries);
}

/** A button that opens a list of entries: buttons, or groups of them. Arrow keys go from one to the next. */
export function menu(face, name, entries, icon = false, kind = '') {
  const made = html.details(
    { class: `menu ${kind}`.trim(), 'data-key': name, 'aria-label': name },
    html.summary(
      { class: icon ? 'quiet icon' : 'quiet', 'aria-label': icon ? name : null, 'aria-haspopup': 'menu' },
      face,
    ),
    html.ul({ role: 'menu', 'aria-label': name }, menuItems(entries)),
  );
  made.addEventListener('keydown', (event) => {
    const all = [...made.querySelectorAll('li button')],
      at = all.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? -1 : at - 1, Home: 0, End: -1 }[event.key];
    if (!made.open || to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    all.at(to % all.length).focus();
  });
  return made;
}

/** Entries of a menu under a name of their own. */
export function menuGroup(name, entries) {
  return html.ul(
    { role: 'group', 'aria-label': name },
    html.li({ role: 'none', class: 'tag' }, name),
    menuItems(entries),
  );
}

/** An entry that is chosen or not: one in its group, or by itself (`checkbox`). */
export function menuChoice(told, name, on, kind = 'radio') {
  return html.button({ ...told, role: `menuitem${kind}`, 'aria-checked': String(on) }, name);
}

function menuItems(entries) {
  return entries.map((entry) => {
    if (entry.nodeName === 'BUTTON' && !entry.hasAttribute('role')) entry.setAttribute('role', 'menuitem');
    return html.li({ role: 'none' }, entry);
  });
}
