// The head sheet as a table of numbers: sorted by any column, one page at a time.

import { html, svg } from '../dom.js';
import { whole } from '../numbers.js';
import { HEAD_MEASURES, measureSaid, measuresOf, sortedHeads } from './ranks.js';

const LINES = 20; // on a page

/** The table twin: `order` is what it is sorted by, `page` counts from 0. */
export function headTable(heads, order, page, { part, units, chosen }) {
  const measures = measuresOf(part),
    sorted = sortedHeads(heads, order),
    pages = Math.max(1, Math.ceil(sorted.length / LINES)),
    at = Math.min(page, pages - 1);
  const printers = Object.fromEntries(
    measures.map((name) => [name, HEAD_MEASURES[name].printer(heads.map((head) => head[name]))]),
  );
  const lines = sorted.slice(at * LINES, (at + 1) * LINES);
  return [
    html.div(
      { class: 'scrolls', tabindex: 0, role: 'region', 'aria-label': 'Numbers of all heads' },
      html.table(
        { class: 'headtable' },
        html.thead(
          null,
          html.tr(
            null,
            column('head', 'Head', order),
            measures.map((name) => column(name, HEAD_MEASURES[name].title, order)),
            html.th({ scope: 'col' }, 'Width along the text'),
          ),
        ),
        html.tbody(
          null,
          lines.map((head) => tableLine(head, printers, chosen(head))),
        ),
      ),
    ),
    pages > 1 && turner(at, pages, sorted.length),
    html.dl(
      { class: 'meanings' },
      measures.map((name) => [html.dt(null, HEAD_MEASURES[name].title), html.dd(null, measureSaid(name, units))]),
    ),
  ];
}

function column(name, title, { by, falling }) {
  const sort = by === name ? (falling ? 'descending' : 'ascending') : null;
  return html.th(
    { scope: 'col', 'aria-sort': sort },
    html.button({ 'data-sort': name }, title, by === name && (falling ? ' ↓' : ' ↑')),
  );
}

function tableLine(head, printers, on) {
  return html.tr(
    { 'data-key': `${head.layer}.${head.head}`, class: on ? 'on' : null },
    html.th(
      { scope: 'row' },
      html.button(
        { class: 'link', 'data-layer': head.layer, 'data-head': head.head, 'aria-current': on ? 'true' : null },
        `${head.layer}.${head.head}`,
      ),
    ),
    Object.entries(printers).map(([name, print]) => html.td(null, print(head[name]))),
    html.td({ class: 'along' }, sparkline(head.spark)),
  );
}

/** A head's width from the first query to the last, from nothing to its largest. */
function sparkline(values) {
  const most = Math.max(...values, 1e-9),
    step = 100 / Math.max(1, values.length - 1);
  const points = values.map((value, at) => `${(at * step).toFixed(1)},${(19 - (18 * value) / most).toFixed(1)}`);
  return svg.svg(
    { class: 'spark', viewBox: '0 0 100 20', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg.polyline({ points: points.join(' ') }),
  );
}

function turner(at, pages, count) {
  const last = Math.min(count, (at + 1) * LINES);
  return html.p(
    { class: 'turner' },
    html.button({ class: 'quiet icon', 'data-page': at - 1, 'aria-label': 'Heads before', disabled: at === 0 }, '‹'),
    html.span(null, `${whole(at * LINES + 1)} to ${whole(last)} of ${whole(count)}`),
    html.button(
      { class: 'quiet icon', 'data-page': at + 1, 'aria-label': 'Heads after', disabled: at === pages - 1 },
      '›',
    ),
  );
}
