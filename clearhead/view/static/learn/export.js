// Exports the page's contents as files: numbers, an SVG, a PNG, the page itself.

import { svg } from '../dom.js';
import { asRgb, rasterized } from '../files.js';
import { shownName } from './items.js';
import { shade, shown } from './triangle.js';

/** Each visible pair, in full precision. */
export function csvOf(p) {
  const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [['query', 'key', 'query_name', 'key_name', 'score', 'exponential', 'weight'].join(',')];
  p.shown.rows.forEach((row, i) =>
    row.weights.forEach((weight, j) => {
      if (p.shown.seen[i][j])
        lines.push(
          [i + 1, j + 1, quote(p.names[i]), quote(p.names[j]), row.scores[j], row.exponentials[j], weight].join(','),
        );
    }),
  );
  return `${lines.join('\r\n')}\r\n`;
}

/** The triangle as a self-contained SVG, with the plane next to it. */
export function drawingOf(state, p) {
  const cell = 64,
    high = 30,
    first = 110,
    top = 40,
    style = getComputedStyle(document.documentElement);
  const colour = (name) => asRgb(style.getPropertyValue(name).trim());
  const text = (x, y, content, more) =>
    svg.text({ x, y, fill: colour('--ink'), 'font-family': 'sans-serif', 'font-size': 12, ...more }, content);
  const parts = [];
  p.names.forEach((name, i) => {
    parts.push(
      text(first + i * cell + cell / 2, top - 10, shownName(name), {
        'text-anchor': 'middle',
        'font-family': 'serif',
        'font-size': 13,
      }),
    );
    parts.push(
      text(first - 8, top + i * high + 20, shownName(name), {
        'text-anchor': 'end',
        'font-family': 'serif',
        'font-size': 13,
      }),
    );
    p.names.forEach((_, j) => {
      if (!p.shown.seen[i][j]) return;
      const step = state.show === 'scores' ? 0 : shade(p.shown.rows[i].weights[j]),
        on = i === p.row && j === p.column;
      parts.push(
        svg.rect({
          x: first + j * cell,
          y: top + i * high,
          width: cell - 2,
          height: high - 2,
          rx: 2,
          fill: colour(`--w${step}`),
          stroke: on ? colour('--pair') : 'none',
          'stroke-width': 2.5,
        }),
      );
      parts.push(
        text(first + j * cell + cell / 2, top + i * high + 19, shown(p, state.show, i, j, false), {
          'text-anchor': 'middle',
          fill: colour(`--on-w${step}`),
        }),
      );
    });
  });
  const width = first + p.n * cell + 16,
    height = top + p.n * high + 16;
  const drawing = svg.svg(
    { xmlns: 'http://www.w3.org/2000/svg', viewBox: `0 0 ${width} ${height}`, width, height },
    svg.title(null, `${state.show} of ${p.names.map(shownName).join(' ')}`),
    svg.rect({ width, height, fill: colour('--paper') }),
    parts,
  );
  return { text: new XMLSerializer().serializeToString(drawing), width, height };
}

/** The drawing as a PNG of twice its size. */
export function pictureOf(state, p) {
  return rasterized(drawingOf(state, p));
}
