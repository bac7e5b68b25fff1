// What is true of all that a pane shows: the reading's own remarks, and what a page holds that has nobody to ask.

import { alone, answered } from '../ask.js';
import { html } from '../dom.js';
import { whole } from '../numbers.js';
import { headOf } from './said.js';

const MOST_LINES_SAID = 3;
const HELD = alone ? [heldSaid()] : [];

/** A line each. */
export function remarksView({ notes }) {
  return [...notes, ...HELD].map((note) => html.p({ class: 'cap', 'data-key': note }, note));
}

/** Which rows and columns, of which heads, and how many heads have pictures. */
function heldSaid() {
  const lines = new Set(answered((what) => what === 'line').map(([, about]) => lineOf(about)));
  const heads = answered((what) => what === 'sheet').reduce((sum, [, , told]) => sum + (told.heads?.length ?? 0), 0);
  const named = lines.size > MOST_LINES_SAID ? `${whole(lines.size)} rows and columns` : [...lines].join(' and ');
  const pictures = heads ? `, and pictures of ${heads === 1 ? 'one head' : `${whole(heads)} heads`}` : '';
  return `This page holds the text, ${named}, their maps${pictures}; nothing else can be shown in it.`;
}

function lineOf(about) {
  const times = about.measure === 'value' ? ' times the value’s length' : '';
  return `${about.by} ${whole(about.at)} of ${headOf(about)}${times}`;
}
