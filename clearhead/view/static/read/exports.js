// Export of what the panes show: the page as one file, a row or column as numbers, the map as a drawing or a picture.

import { asFile } from '../ask.js';
import { legendMarks, scaleSentence, shortAmount, stepOf } from './colours.js';
import { drawingPalette, mapDrawing, MOST_CELLS, NAMED_CELLS } from './drawing.js';
import { rasterized, save } from '../files.js';
import { csvOfLine, fileSize, shownAnswers } from './kept.js';
import { headOf } from './said.js';
import { sees } from './sight.js';
import { wordOf } from './tokens.js';
import { printed, sentenceOf, spoken } from './wording.js';

/** Save what is shown as "html", "csv", "svg" or "png"; a pane has its `view` and what its map has `drawn`. The tables
 * and drawings are of the active one. Returns what was saved, in words. */
export async function exportAs(kind, { panes, active, state, request }) {
  const { view, drawn } = active,
    name = fileName(view);
  if (kind === 'html') {
    const shown = panes.map((pane) => ({ view: pane.view, places: pane.drawn?.places ?? [] }));
    return saved('clearhead.html', await asFile('read', state, await shownAnswers(request, shown)));
  }
  if (kind === 'csv') {
    const [side, line] = view.by === 'row' ? ['keys', `row${view.row}`] : ['queries', `column${view.column}`];
    const names = await wholeNames(request, view, side),
      measured = view.about.measure === 'value' ? 'weight_times_value_length' : 'weight';
    return saved(`${name}-${line}.csv`, new Blob([csvOfLine(names, view.line.values, measured)], { type: 'text/csv' }));
  }
  if (!drawn) throw new Error('There is no map yet: show the matrix first.');
  const drawing = mapDrawing(asDrawn(view, drawn));
  const file = kind === 'svg' ? new Blob([drawing.text], { type: 'image/svg+xml' }) : await rasterized(drawing);
  return saved(`${name}-map.${kind}`, file);
}

function saved(name, file) {
  save(name, file);
  return `${name}, ${fileSize(file.size)}`;
}

function fileName({ about: { layer, heads, join } }) {
  const which = join === 'one' ? `head${heads[0]}` : `${join}-of-${heads.length}-heads`;
  return `clearhead-layer${layer}-${which}`;
}

/** All names of a side, even those that have not come yet. */
async function wholeNames(request, { about: { reading, part, layer } }, side) {
  const found = [];
  for (;;) {
    const { names, to, count } = await request('names', { reading, part, layer, side, from: found.length });
    found.push(...names);
    if (to >= count || !names.length) return found;
  }
}

/** A map as plain data for a drawing: whole cells where there are few of them, and else its pixels. */
function asDrawn(view, { image, rows: [top, bottom], columns: [left, right], at, plain, said, floor, top: most }) {
  const palette = drawingPalette(),
    { layer, reading, part, about, names, row, column } = view;
  const count = Math.max(Math.ceil(bottom) - Math.floor(top), Math.ceil(right) - Math.floor(left));
  const [down, up] = count <= MOST_CELLS ? [Math.floor, Math.ceil] : [Number, Number]; // whole cells
  const [y, x, end, edge] = [down(top), down(left), up(bottom), up(right)];
  const weightAt = (r, c) => (sees(layer, y + r, x + c) ? at(y + r, x + c) : undefined);
  const step = (r, c) => {
    const weight = weightAt(r, c);
    return weight === undefined ? null : stepOf(weight, floor, most);
  };
  const text = (r, c) => shortAmount(weightAt(r, c), about.measure === 'value');
  const shown = (side, from, to) => Array.from({ length: to - from }, (_, n) => wordOf(names[side][from + n]));
  const [ringX, ringY] = [(column + 0.5 - x) / (edge - x), (row + 0.5 - y) / (end - y)];
  const seen = ringX > 0 && ringX < 1 && ringY > 0 && ringY < 1;
  return {
    title: `${reading.name}, ${headOf(about)}${reading.parts.length > 1 ? ` of ${part.name}` : ''}`,
    caption: `${spoken(sentenceOf(view))} ${said} ${scaleSentence(floor, most, plain)}`,
    cells: { rows: end - y, columns: edge - x, step, text },
    image,
    names: count <= NAMED_CELLS ? { rows: shown('queries', y, end), columns: shown('keys', x, edge) } : null,
    ring: seen ? { x: ringX, y: ringY, text: printed(view, view.pair ?? 0) } : null,
    legend: legendMarks(floor, most, plain),
    palette,
  };
}
