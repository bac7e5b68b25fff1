// Stand-in until the sheet of heads is there.

import { html } from '../dom.js';

export function makeSheet() {
  return { element: html.section({ class: 'sheet', hidden: true, 'aria-label': 'All heads' }), update() {}, stop() {} };
}
