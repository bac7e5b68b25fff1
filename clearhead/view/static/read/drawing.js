// The map as a drawing that needs nothing else: an SVG of cells or with a picture inside, with its legend and caption.

import { svg } from '../dom.js';
import { asRgb } from '../files.js';

export const MOST_CELLS = 64; // each way, that are drawn one by one
export const NAMED_CELLS = 40; // each way, that have their names beside them
const DRAWN_WIDE = 512;
const NUMBERED = 42; // pixels of a cell that has room for its number
const DRAWN_MARGIN = 24;
const LETTER = 6.4; // pixels, on average

/** `cells` is { rows, columns, step(row, column), text(row, column) }, where a step of null is not seen; `image` the pixels in place of more than
 * 64 × 64 cells; `names` { rows, columns } of at most 40; `ring` { x, y, text } of the chosen pair as parts of the whole;
 * `legend` [[part, text], …]; `palette` the colours of the page. Returns { text, width, height }. */
export function mapDrawing({ title, caption, cells, image, names, ring, legend, palette }) {
  const { rows, columns } = cells,
    longest = (list) => Math.min(160, LETTER * Math.max(...list.map((name) => name.length)) + 8);
  const left = DRAWN_MARGIN + (names ? longest(names.rows) : 0),
    side = DRAWN_WIDE / Math.max(rows, columns),
    flat = names && longest(names.columns) < side;
  const top = DRAWN_MARGIN + 24 + (flat ? 16 : names ? longest(names.columns) : 0),
    wide = side * columns,
    high = side * rows,
    width = left + Math.max(wide, 320) + DRAWN_MARGIN;
  const colour = palette.inks;
  const text = (x, y, content, more) =>
    svg.text(
      { x: x.toFixed(1), y: y.toFixed(1), fill: colour.ink2, 'font-family': palette.sans, 'font-size': 12, ...more },
      plain(content),
    );
  const words = wrapped(caption, (width - left - DRAWN_MARGIN) / LETTER),
    foot = top + high + 60;
  const height = foot + 18 * words.length + DRAWN_MARGIN - 12;
  const drawing = svg.svg(
    { xmlns: 'http://www.w3.org/2000/svg', viewBox: `0 0 ${width} ${height}`, width, height },
    svg.title(null, plain(title)),
    svg.defs(null, hatching(colour.line)),
    svg.rect({ width, height, fill: colour.paper }),
    text(DRAWN_MARGIN, DRAWN_MARGIN + 4, title, { fill: colour.ink, 'font-size': 15, 'font-weight': 600 }),
    svg.rect({ x: left, y: top, width: wide, height: high, fill: 'url(#later)', stroke: colour.line }),
    Math.max(rows, columns) <= MOST_CELLS
      ? squares(cells, { left, top, side, palette, text })
      : svg.image({
          x: left,
          y: top,
          width: wide,
          height: high,
          preserveAspectRatio: 'none',
          style: { 'image-rendering': 'pixelated' },
          href: pngOf(image),
        }),
    names && sideNames(names, { left, top, side, flat, text, serif: palette.serif }),
    ring && ringAt(left + ring.x * wide, top + ring.y * high, ring.text, { side, colour, text, right: left + wide }),
    legendAt(left, top + high + 14, Math.min(wide, 320), { legend, steps: palette.steps, text }),
    words.map((line, at) => text(left, foot + 18 * at, line)),
  );
  return { text: new XMLSerializer().serializeToString(drawing), width, height };
}

/** The colours of a figure, which is for paper and so light whatever the page is, in a notation that every viewer
 * understands. */
export function drawingPalette() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => asRgb(style.getPropertyValue(`--${name}`).trim(), 'light');
  return {
    inks: Object.fromEntries(['paper', 'ink', 'ink2', 'line', 'pair'].map((name) => [name, colour(name)])),
    steps: Array.from({ length: 21 }, (_, step) => colour(`w${step}`)),
    on: Array.from({ length: 21 }, (_, step) => colour(`on-w${step}`)),
    sans: 'system-ui, sans-serif',
    serif: 'Charter, Georgia, serif',
  };
}

function squares({ rows, columns, step, text: said }, { left, top, side, palette, text }) {
  const gap = side > 12 ? 1 : 0;
  return Array.from({ length: rows * columns }, (_, at) => {
    const [row, column] = [Math.floor(at / columns), at % columns],
      shade = step(row, column);
    if (shade === null) return null;
    const [x, y] = [left + column * side, top + row * side];
    return [
      svg.rect({
        x: x.toFixed(2),
        y: y.toFixed(2),
        width: (side - gap).toFixed(2),
        height: (side - gap).toFixed(2),
        fill: palette.steps[shade],
      }),
      side >= NUMBERED &&
        text(x + side / 2, y + side / 2 + 4, said(row, column), {
          fill: palette.on[shade],
          'font-size': 11,
          'text-anchor': 'middle',
        }),
    ];
  });
}

function pngOf(image) {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext('2d').putImageData(image, 0, 0);
  return canvas.toDataURL('image/png');
}

function sideNames({ rows, columns }, { left, top, side, flat, text, serif }) {
  const font = { 'font-family': serif, 'font-size': Math.min(13, side) };
  return [
    rows.map((name, at) => text(left - 6, top + (at + 0.5) * side + 4, name, { ...font, 'text-anchor': 'end' })),
    columns.map((name, at) => {
      const [x, y] = [left + (at + 0.5) * side + (flat ? 0 : 4), top - 6];
      if (flat) return text(x, y, name, { ...font, 'text-anchor': 'middle' });
      return text(x, y, name, { ...font, transform: `rotate(-90 ${x.toFixed(1)} ${y.toFixed(1)})` });
    }),
  ];
}

/** A ring round the chosen pair, or its cell's edge where that is larger. */
function ringAt(x, y, label, { side, colour, text, right }) {
  const near = x > right - 60 - side,
    half = Math.max(7, side / 2),
    look = { fill: 'none', stroke: colour.pair, 'stroke-width': 2.5 };
  const [beside, above] = [half + 5, side > 14 ? -4 : 6];
  return [
    side > 14
      ? svg.rect({ x: (x - half).toFixed(1), y: (y - half).toFixed(1), width: side, height: side, rx: 2, ...look })
      : svg.circle({ cx: x.toFixed(1), cy: y.toFixed(1), r: half, ...look }),
    text(near ? x - beside : x + beside, y - above, label, {
      fill: colour.pair,
      stroke: colour.paper,
      'stroke-width': 4,
      'paint-order': 'stroke',
      'font-weight': 600,
      'text-anchor': near ? 'end' : 'start',
    }),
  ];
}

function legendAt(x, y, wide, { legend, steps, text }) {
  const each = wide / steps.length;
  return [
    steps.map((fill, at) =>
      svg.rect({ x: (x + at * each).toFixed(2), y, width: (each + 0.2).toFixed(2), height: 10, fill }),
    ),
    legend.map(([part, said]) =>
      text(x + part * wide, y + 23, said, {
        'font-size': 11,
        'text-anchor': part === 0 ? 'start' : part === 1 ? 'end' : 'middle',
      }),
    ),
  ];
}

function hatching(stroke) {
  return svg.pattern(
    { id: 'later', width: 8, height: 8, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
    svg.path({ d: 'M0 0V8', stroke }),
  );
}

/** Text without characters that XML cannot hold. */
function plain(text) {
  return text.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '�');
}

/** Lines of at most so many letters. */
function wrapped(text, most) {
  const lines = [''];
  for (const word of text.split(' ')) {
    if (lines.at(-1) && lines.at(-1).length + word.length + 1 > most) lines.push(word);
    else lines[lines.length - 1] += lines.at(-1) ? ` ${word}` : word;
  }
  return lines;
}
