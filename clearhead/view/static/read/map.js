// Stand-in until the map is there.

import { html } from '../dom.js';

export function makeMap() {
  return { element: html.section({ class: 'mappane', 'aria-label': 'Map' }), update() {}, goTo() {}, stop() {} };
}
