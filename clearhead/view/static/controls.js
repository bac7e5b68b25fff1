// Controls that both screens have: icons and menus.

import { html, svg } from './dom.js';

export const UNDO = 'M3 6h6.5a3.5 3.5 0 0 1 0 7H6M3 6l3-3M3 6l3 3',
  REDO = 'M13 6H6.5a3.5 3.5 0 0 0 0 7H10M13 6l-3-3M13 6l-3 3';

/** A line drawing in place of a word; its button is named by aria-label. */
export function icon(path) {
  return svg.svg({ viewBox: '0 0 16 16', 'aria-hidden': 'true' }, svg.path({ d: path }));
}

/** A button that opens a list of entries. */
export function menu(face, name, entries, icon = false) {
  return html.details(
    { class: 'menu', 'aria-label': name },
    html.summary({ class: icon ? 'quiet icon' : 'quiet', 'aria-label': icon ? name : null }, face),
    html.ul(
      null,
      entries.map((entry) => html.li(null, entry)),
    ),
  );
}
