// The thumbnails as a grid: one canvas, one element for the head that the keyboard is on, frames for the chosen ones.

import { draw, html, svg } from '../dom.js';
import { makeThumbs, placesByLayer, placesInOrder } from './thumbs.js';

const DIRECTIONS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** `choose` a head by click or Enter; `point` is told which head the pointer or the keyboard is on. */
export function makeHeadGrid({ choose, point }) {
  const thumbs = makeThumbs(),
    { canvas } = thumbs,
    frames = svg.svg({ class: 'over', 'aria-hidden': 'true' }),
    cells = html.div({ role: 'grid', 'aria-label': 'Heads', class: 'heads' }),
    box = html.div({ class: 'thumbbox' }, canvas, frames, cells),
    aside = html.div({ class: 'aside', 'aria-hidden': 'true' }),
    below = html.div({ class: 'below', 'aria-hidden': 'true' });
  const element = html.div({ class: 'thumbs scrolls' }, aside, box, below);
  let shown = null,
    places = null,
    scale = null,
    current = null, // the cell of the keyboard
    under = null; // the cell of the pointer

  function update(next) {
    const { layers, known, sorted } = next;
    shown = next;
    places = sorted ? placesInOrder(sorted, room()) : placesByLayer(layers);
    scale = thumbs.update(places, known, layers);
    current = find(current) ?? places.cells.find(shown.chosen) ?? places.cells[0] ?? null;
    under = find(under);
    for (const [name, value] of [
      ['--gap', places.gap],
      ['--side', places.side],
      ['--wide', places.width],
      ['--high', places.height],
    ])
      element.style.setProperty(name, `${value}px`);
    draw(aside, sorted ? marks() : brackets());
    draw(below, !sorted && numbersOfLayers(layers));
    framesView();
    cellView();
  }

  function find(cell) {
    return (cell && places.cells.find(({ layer, head }) => layer === cell.layer && head === cell.head)) ?? null;
  }

  /** How wide thumbnails in order may be, beside the numbers that their lines begin with. */
  function room() {
    return Math.min(900, (element.closest('.sheetgrid')?.clientWidth ?? 964) - 64);
  }

  function brackets() {
    return html.ol(
      { class: 'kvs' },
      places.groups.map(({ key, heads }) =>
        html.li(
          { style: { '--count': heads.length } },
          key !== null && [html.b(null, `key ${key}`), html.i()],
          heads.map((head) => html.span(null, String(head))),
        ),
      ),
    );
  }

  /** In order: what the first head of each line has. */
  function marks() {
    const first = places.cells.filter(({ column }) => column === 0);
    return html.ol(
      { class: 'marks' },
      first.map((cell) => html.li(null, shown.mark(cell))),
    );
  }

  function numbersOfLayers(layers) {
    return html.ol(
      { class: 'layers' },
      layers.map(({ number }) => html.li(null, String(number))),
    );
  }

  function framesView() {
    const { side, width, height } = places;
    frames.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const frame = (cell, kind, out) =>
      svg.rect({
        class: kind,
        x: cell.x - out,
        y: cell.y - out,
        width: side + 2 * out,
        height: side + 2 * out,
        rx: 2,
      });
    draw(
      frames,
      under && frame(under, 'under', 1),
      places.cells.filter(shown.chosen).map((cell) => frame(cell, 'pick', 2.5)),
    );
  }

  function cellView() {
    cells.setAttribute('aria-rowcount', places.rows);
    cells.setAttribute('aria-colcount', places.columns);
    draw(
      cells,
      current &&
        html.div(
          { role: 'row', 'aria-rowindex': current.row + 1 },
          html.div({
            role: 'gridcell',
            tabindex: 0,
            'aria-colindex': current.column + 1,
            'aria-selected': String(shown.chosen(current)),
            'aria-label': `Layer ${current.layer}, head ${current.head}`,
            style: { left: `${current.x}px`, top: `${current.y}px` },
          }),
        ),
    );
  }

  /** The cell at a place of the window. */
  function cellAt({ clientX, clientY }) {
    const { left, top } = canvas.getBoundingClientRect();
    const [x, y] = [clientX - left, clientY - top];
    const reach = places.side + places.gap;
    return places.cells.find((cell) => x >= cell.x && x < cell.x + reach && y >= cell.y && y < cell.y + reach);
  }

  /** The next cell in a direction, past places without a head. */
  function moved(key, control) {
    const { cells: all } = places;
    if (key === 'Home' || key === 'End') {
      const line = all.filter(({ row }) => control || row === current.row);
      return line.reduce((a, b) => ((b.row - a.row || b.column - a.column) * (key === 'End' ? 1 : -1) > 0 ? b : a));
    }
    const [down, right] = DIRECTIONS[key];
    const ahead = all.filter(
      ({ row, column }) =>
        (down ? column === current.column : row === current.row) &&
        (row - current.row) * down + (column - current.column) * right > 0,
    );
    const far = (cell) => Math.abs(cell.row - current.row) + Math.abs(cell.column - current.column);
    return ahead.length ? ahead.reduce((a, b) => (far(b) < far(a) ? b : a)) : current;
  }

  function pointUnder(cell) {
    if (cell?.layer === under?.layer && cell?.head === under?.head) return;
    under = cell ?? null;
    framesView();
    point(under, false);
  }

  box.addEventListener('pointermove', (event) => pointUnder(cellAt(event)));
  box.addEventListener('pointerleave', () => pointUnder(null));
  box.addEventListener('click', (event) => {
    const cell = cellAt(event);
    if (!cell) return;
    current = cell;
    choose({ layer: cell.layer, head: cell.head });
  });
  cells.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' || event.key === ' ') choose({ layer: current.layer, head: current.head });
    else if (event.key in DIRECTIONS || event.key === 'Home' || event.key === 'End') {
      current = moved(event.key, event.ctrlKey);
      cellView();
      cells.querySelector('[role=gridcell]').scrollIntoView({ block: 'nearest', inline: 'nearest' });
      point(current, true);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  cells.addEventListener('focusout', () => point(null, false));

  return {
    element,
    update,
    shared: () => places?.shared ?? false,
    scale: () => scale,
  };
}
