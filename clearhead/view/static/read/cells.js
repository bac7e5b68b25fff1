// The cells round the chosen pair as a table, with their numbers: the map's twin for reading and for the keyboard.

import { draw, html } from '../dom.js';
import { whole } from '../numbers.js';
import { amount, shortAmount, stepOf } from './colours.js';
import { briefName, itemName } from './labels.js';
import { sees } from './sight.js';

const TABLE_ROWS = 5,
  TABLE_COLUMNS = 6;
const CELL_MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** `choose({ row, column })` and `say(text)` as the map has them; `moved()` asks for a redraw with other cells. */
export function makeCells({ choose, say, moved }) {
  const element = html.table({ class: 'cells', role: 'grid' });
  let scene = null;
  let focus = null; // the cell that Tab reaches, and the middle of the table
  let chosen = ''; // the pair for which it was placed

  /** Cells round the focus: from the middle outwards, as many as there are. */
  function shown() {
    const { layer } = scene;
    const span = (middle, count, length) => {
      const first = Math.max(0, Math.min(middle - Math.floor(count / 2), length - count));
      return Array.from({ length: Math.min(count, length) }, (_, k) => first + k);
    };
    return { rows: span(focus.row, TABLE_ROWS, layer.queries), columns: span(focus.column, TABLE_COLUMNS, layer.keys) };
  }

  /** The place round which the table stands, so that the map can ask for its tiles. */
  function place(view) {
    const name = JSON.stringify([view.row, view.column, view.about]);
    if (name !== chosen) {
      focus = { row: view.row ?? 0, column: view.column ?? 0 };
      chosen = name;
    }
    scene = { ...scene, view, layer: view.layer };
    return shown();
  }

  /** `next` is { view, layer, at, floor, top, plain, shaded }; `shaded` says so if the scale is not the map's. */
  function update(next) {
    scene = next;
    const { rows, columns } = place(next.view);
    const hadFocus = element.contains(document.activeElement);
    const { view } = scene;
    const head = columns.map((j) => heading('col', 'keys', j, j === view.column));
    const body = rows.map((i) =>
      html.tr(
        { 'data-key': i },
        heading('row', 'queries', i, i === view.row),
        columns.map((j) => cellOf(i, j)),
      ),
    );
    draw(
      element,
      html.caption(null, `Cells, one by one, round the chosen pair${next.shaded ?? ''}`),
      html.thead(null, html.tr(null, html.td({ role: 'presentation' }), head)),
      html.tbody(null, body),
    );
    if (hadFocus) element.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  }

  function heading(scope, side, index, on) {
    const title = `${itemName(scene.view.names[side], index)}, ${whole(index)}`;
    return html.th(
      { scope, class: `name${on ? ' on' : ''}`, 'data-key': `${scope}${index}`, title },
      html.bdi({ class: 'word' }, briefName(scene.view, side, index)),
    );
  }

  function cellOf(row, column) {
    const { view, layer, floor, top, plain } = scene;
    const on = row === view.row && column === view.column;
    const at = focus.row === row && focus.column === column;
    const common = { role: 'gridcell', 'data-key': `${row},${column}`, tabindex: at ? 0 : -1 };
    common['aria-selected'] = String(on);
    if (!sees(layer, row, column)) {
      return html.td({ ...common, class: 'cell unseen-cell' }, html.span({ class: 'unseen' }, 'not seen'));
    }
    const weight = weightAt(row, column);
    const shade = weight === undefined ? '' : ` w${stepOf(weight, floor, top)}`;
    const text = weight === undefined ? '…' : shortAmount(weight, plain);
    return html.td({ ...common, class: `cell${shade}${on ? ' on' : ''}` }, text);
  }

  /** From the map's tiles, or from the line that is shown anyway. */
  function weightAt(row, column) {
    const { view, at } = scene;
    const weight = at(row, column);
    if (weight !== undefined) return weight;
    if (view.by === 'row' && row === view.row) return view.line?.values[column];
    return view.by === 'column' && column === view.column ? view.line?.values[row] : undefined;
  }

  function sentence({ row, column }) {
    const { view, layer, plain } = scene;
    const weight = weightAt(row, column);
    const shown = sees(layer, row, column)
      ? weight === undefined
        ? 'not here yet'
        : amount(weight, plain)
      : 'not seen';
    const query = itemName(view.names.queries, row),
      key = itemName(view.names.keys, column);
    return `row ${whole(row)}, ${query}; column ${whole(column)}, ${key}: ${shown}`;
  }

  element.addEventListener('keydown', (event) => {
    const move = CELL_MOVES[event.key];
    if (event.key === 'Enter') choose(focus);
    else if (move) {
      const within = (at, length) => Math.max(0, Math.min(length - 1, at));
      focus = {
        row: within(focus.row + move[0], scene.layer.queries),
        column: within(focus.column + move[1], scene.layer.keys),
      };
      moved();
      say(sentence(focus));
    } else return;
    event.preventDefault();
  });
  element.addEventListener('click', (event) => {
    const cell = event.target.closest('[role=gridcell]');
    if (!cell) return;
    const [row, column] = cell.dataset.key.split(',').map(Number);
    if (sees(scene.layer, row, column)) choose({ row, column });
  });
  return { element, place, update };
}
