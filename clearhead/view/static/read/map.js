// The map: all weights of a head as pixels, down to single cells with their numbers.

import { watchAppearance } from '../appearance.js';
import { draw, html } from '../dom.js';
import { makeCells } from './cells.js';
import { FEW_ITEMS, floorOfPixels, legendView, paletteOf, topOf } from './colours.js';
import { frameFor, partsOf, penOf, segment } from './frame.js';
import { watchGestures } from './gestures.js';
import { depthFor, tilesInSight, tilesOfAnyDepth, tilesOfCells } from './insight.js';
import { drawMarks, RING_SIZE } from './marks.js';
import { cellsAPixel, coloured, pooled } from './pixels.js';
import { cellSentence, headOf, pixelSentence, spotAt, statusView } from './said.js';
import { sees } from './sight.js';
import { deepest, makeTiles } from './tiles.js';
import { cellUnder, centred, fitted, moved, resized, roomForNumbers, showing, zoomed } from './viewport.js';

const PATIENCE = 100; // milliseconds without a word about progress
const SOON = 40; // milliseconds in which strips gather
const ZOOM_STEP = 2 ** 0.5; // of a button or key that zooms
const ARROW_PIXELS = 4; // pixels that an arrow key moves
const POOLINGS = ['max', 'sum', 'mean'];
const ARROW_KEYS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

/** `host` is { request, alone, choose({ row, column }), say(text), how(kind) }. */
export function makeMap(host) {
  const parts = partsOf();
  const tiles = makeTiles({ request: host.request, alone: host.alone, arrived: planSoon });
  const cells = makeCells({ choose: host.choose, say: host.say, moved: () => plan(true) });
  parts.cells.append(cells.element);
  let view = null;
  let port = null;
  let frame = null; // where in the box the matrix is, in CSS pixels
  let aim = null; // the cell that is to stand in the middle
  let cursor = null; // the cell under the pointer or the arrow keys
  let pointer = null; // where in the box the pointer is
  let palette = null;
  let field = null;
  let scale = { floor: 0, top: 1 };
  let planned = 0,
    stale = false,
    waitingSince = 0,
    patience = 0,
    soon = 0;

  // Listeners outside of the map's own elements, removed by stop().
  const resizes = new ResizeObserver(() => plan(true));
  resizes.observe(parts.box);
  const unwatch = watchAppearance(() => plan(true));

  function update(next) {
    const before = view;
    view = next;
    const key = (of) => JSON.stringify([of.about, of.layer.queries, of.layer.keys]);
    const shape = (of) => `${of.layer.queries} ${of.layer.keys} ${of.part.name} ${of.about.reading}`;
    if (!before || key(before) !== key(next)) waitingSince = 0;
    if (!before || shape(before) !== shape(next)) {
      port = null;
      cursor = pointer = null;
    }
    tiles.use(next.about, next.how, next.layer);
    plan(true);
  }

  /** Draw with the next frame; `pixels` also pools and colours anew. */
  function plan(pixels = false) {
    stale ||= pixels;
    planned ||= requestAnimationFrame(redraw);
  }

  /** Draw what has come: many strips at once, the last one without delay. */
  function planSoon() {
    const { done, of } = tiles.progress();
    if (done === of) return plan(true);
    soon ||= setTimeout(() => {
      soon = 0;
      plan(true);
    }, SOON);
    return undefined;
  }

  function redraw() {
    planned = 0;
    if (!view || !parts.element.isConnected) return;
    const last = palette;
    palette = paletteOf(parts.probe, palette);
    drawControls();
    if (measure() || last !== palette) stale = true;
    if (!frame.width) return;
    if (pointer) cursor = cellUnder(port, inFrame(pointer), view.layer, frame);
    if (stale) redrawPixels();
    stale = false;
    const scene = sceneOf();
    const pen = penOf(parts.over, parts.box.clientWidth, frame.bottom);
    drawMarks(pen, scene);
    cells.update({ ...scene, ...cellScale() });
    drawWords();
  }

  /** Place the matrix in its box; tells whether that has changed. */
  function measure() {
    const before = frame;
    frame = frameFor(parts, palette, view, { few: isFew(), named: isNamed() });
    const same = before && ['left', 'top', 'width', 'height'].every((side) => before[side] === frame[side]);
    if (!port) port = fitted(view.layer, frame);
    else if (aim && frame.width) port = centred(aim, view.layer, frame);
    else if (!same && frame.width) port = resized(port, view.layer, before, frame);
    if (frame.width) aim = null;
    return !same;
  }

  /** Whether names stand at the side of the matrix. */
  function isNamed() {
    return isFew() || Boolean(port && roomForNumbers(port));
  }

  function isFew() {
    return Math.max(view.layer.queries, view.layer.keys) <= FEW_ITEMS;
  }

  function redrawPixels() {
    const { layer, how } = view;
    const depth = depthFor(port, frame, layer, how);
    const inSight = host.alone ? tilesOfAnyDepth(port, frame, layer) : tilesInSight(depth, port, frame, layer);
    tiles.want([...tilesOfCells(cells.place(view), layer), ...inSight]);
    const ratio = window.devicePixelRatio || 1;
    const size = { width: Math.round(frame.width * ratio), height: Math.round(frame.height * ratio) };
    field = pooled(tiles.all(), { port, layer, frame, size, depth, how });
    const shares = !isPlain();
    const top = shares && (isFew() || how === 'max') ? 1 : topOf(field.values, cellWeights());
    scale = { floor: isFew() ? 0 : floorOfPixels(field.values, top, shares ? 1 / layer.keys : 0), top };
    parts.base.width = size.width;
    parts.base.height = size.height;
    parts.base.getContext('2d').putImageData(coloured(field, { layer, palette, ...scale }), 0, 0);
  }

  /** The weights in the table, where it has the map's colours. */
  function cellWeights() {
    if (view.how !== 'max') return [];
    const { rows, columns } = cells.place(view);
    return rows.flatMap((row) => columns.map((column) => tiles.at(row, column) ?? 0));
  }

  function isPlain() {
    return view.how === 'sum' || view.about.measure === 'value';
  }

  function sceneOf() {
    const plain = view.about.measure === 'value'; // of single cells
    return {
      view,
      layer: view.layer,
      port,
      frame,
      palette,
      cursor,
      few: isFew(),
      named: isNamed(),
      at: tiles.at,
      rings: rings(),
      plain,
      ...scale,
    };
  }

  /** The table's colours: the map's own, unless its pixels are sums or means, which cells are not. */
  function cellScale() {
    if (view.how === 'max' || isFew()) return scale;
    const plain = view.about.measure === 'value';
    const top = plain ? topOf(view.line?.values ?? [1]) : 1;
    return { floor: 0, top, shaded: `, shaded evenly to ${plain ? top : '100 %'}` };
  }

  /** The heaviest cells found so far, those most above an even share first. */
  function rings() {
    const found = new Map();
    for (const tile of tiles.all()) {
      for (const [row, column, weight, lift] of tile.rings)
        found.set(`${row} ${column}`, { row, column, weight, lift });
    }
    const inFrame = ({ row, column }) =>
      row >= port.y &&
      column >= port.x &&
      row <= port.y + frame.height / port.sy &&
      column <= port.x + frame.width / port.sx;
    return [...found.values()]
      .filter(inFrame)
      .sort((a, b) => b.lift - a.lift)
      .slice(0, 3);
  }

  function drawControls() {
    const { layer, about, part } = view;
    parts.words.classList.toggle('few', isFew());
    const size = `${layer.queries.toLocaleString('en')} by ${layer.keys.toLocaleString('en')}`;
    const shape = layer.sees.high === 0 && !part.crosses ? 'Triangle' : 'Matrix';
    parts.box.setAttribute('aria-label', `${shape} of ${size} weights, ${headOf(about)}`);
    const pools = deepest(layer) > 0;
    draw(
      parts.choices,
      pools && segment('Each pixel shows', POOLINGS, view.how),
      isFew() && html.span({ class: 'cap' }, 'every square is one weight'),
    );
  }

  function drawWords() {
    const progress = tiles.progress();
    const waits = progress.done < progress.of && !progress.halted && !progress.error;
    if (!waits) waitingSince = 0;
    else waitingSince ||= performance.now();
    const patient = waits && performance.now() - waitingSince < PATIENCE;
    clearTimeout(patience);
    if (patient) patience = setTimeout(plan, PATIENCE);
    const size = cellsAPixel(field, view.layer);
    const said = isFew() ? '' : pixelSentence(size, view.how, view.layer);
    const coarse = host.alone && size && size.depth < field.depth;
    draw(parts.status, statusView({ progress, patient, said, coarse, head: headOf(view.about) }));
    const spot = cursor && spotAt(field, frame, port, cursor, view.layer);
    const hint =
      spot || waits || progress.error
        ? null
        : html.span({ class: 'hint' }, ' Point at a cell for its number; a double click chooses it.');
    draw(parts.where, cellSentence(view, spot ?? pairSpot()), hint);
    draw(parts.legend, legendView(scale.floor, scale.top, isPlain()));
  }

  function pairSpot() {
    if (view.row === null || view.column === null) return null;
    const value = view.pair ?? tiles.at(view.row, view.column);
    return { rows: [view.row, view.row + 1], columns: [view.column, view.column + 1], value };
  }

  // What is done to the map.

  function inFrame([x, y]) {
    return [x - frame.left, y - frame.top];
  }

  function show(next) {
    if (['x', 'y', 'sx', 'sy'].every((side) => Math.abs(next[side] - port[side]) < 1e-9)) return false;
    port = next;
    parts.box.classList.toggle('free', port.sx > fitted(view.layer, frame).sx * 1.001);
    plan(true);
    return true;
  }

  function zoomBy(factor, at = [frame.width / 2, frame.height / 2]) {
    return Boolean(view && frame?.width) && show(zoomed(port, factor, at, view.layer, frame));
  }

  watchGestures(parts.box, {
    zoom: (factor, at) => zoomBy(factor, inFrame(at)),
    pan: (dx, dy) => show(moved(port, dx, dy, view.layer, frame)),
    point: (at) => {
      pointer = at;
      cursor = null;
      plan();
    },
    choose: (at) => pick(cellUnder(port, inFrame(at), view.layer, frame)),
  });

  /** Choose a cell that is seen; a ringed one if it is near and cells are small. */
  function pick(cell) {
    if (!cell) return;
    const far = (ring) => Math.hypot((ring.column - cell.column) * port.sx, (ring.row - cell.row) * port.sy);
    const [nearest] = rings().sort((a, b) => far(a) - far(b));
    const { row, column } = nearest && far(nearest) <= RING_SIZE && port.sx < RING_SIZE ? nearest : cell;
    if (sees(view.layer, row, column)) host.choose({ row, column });
  }

  function moveCursor([x, y], far) {
    const { layer } = view;
    const step = (size) => Math.max(1, Math.round(ARROW_PIXELS / size)) * (far ? 10 : 1);
    pointer = null;
    const from = cursor ?? { row: view.row ?? 0, column: view.column ?? 0 };
    const within = (at, length) => Math.max(0, Math.min(length - 1, at));
    cursor = {
      row: within(from.row + y * step(port.sy), layer.queries),
      column: within(from.column + x * step(port.sx), layer.keys),
    };
    show(showing(port, cursor, layer, frame));
    plan();
    host.say(
      cellSentence(view, spotAt(field, frame, port, cursor, layer))
        .map((part) => part.textContent ?? part)
        .join(''),
    );
  }

  function isKeyOfMap(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const progress = tiles.progress();
    if (ARROW_KEYS[event.key]) moveCursor(ARROW_KEYS[event.key], event.shiftKey);
    else if (event.key === '+' || event.key === '=') zoomBy(ZOOM_STEP * ZOOM_STEP, middle());
    else if (event.key === '-') zoomBy(1 / ZOOM_STEP / ZOOM_STEP, middle());
    else if (event.key === '0') show(fitted(view.layer, frame));
    else if (event.key === 'Enter' && cursor) pick(cursor);
    else if (event.key === 'Escape' && progress.done < progress.of && !progress.halted) tiles.halt();
    else return false;
    return true;
  }

  /** The cursor's place in the frame, or its middle. */
  function middle() {
    if (!cursor) return undefined;
    return [(cursor.column + 0.5 - port.x) * port.sx, (cursor.row + 0.5 - port.y) * port.sy];
  }

  parts.box.addEventListener('keydown', (event) => {
    if (view && frame && isKeyOfMap(event)) event.preventDefault();
  });
  parts.box.addEventListener('blur', () => {
    cursor = pointer = null;
    plan();
  });
  parts.element.addEventListener('click', (event) => {
    const told = event.target.closest('[data-do]')?.dataset;
    if (told?.do === 'zoom') zoomBy(Number(told.by));
    else if (told?.do === 'halt') tiles.halt();
    else if (told?.do === 'resume') tiles.resume();
    else if (told?.do === 'choice') host.how(told.value);
  });

  function goTo(row, column) {
    if (!view) return;
    cursor = pointer = null;
    if (!frame?.width) return;
    if (!isFew()) {
      aim = { row, column };
      port = centred(aim, view.layer, frame);
    }
    plan(true);
  }

  /** What is drawn, for a file: pixels in the colours of paper, single cells, the scale, and which tiles; null before
   * that. */
  function drawn() {
    if (!field) return null;
    const { x, y, sx, sy } = port;
    return {
      get image() {
        parts.probe.style.setProperty('color-scheme', 'light');
        const light = paletteOf(parts.probe);
        parts.probe.style.removeProperty('color-scheme');
        return coloured(field, { layer: view.layer, palette: light, ...scale });
      },
      rows: [y, Math.min(view.layer.queries, y + frame.height / sy)],
      columns: [x, Math.min(view.layer.keys, x + frame.width / sx)],
      at: tiles.at,
      plain: isPlain(),
      said: pixelSentence(cellsAPixel(field, view.layer), view.how, view.layer),
      places: tiles.places(),
      ...scale,
    };
  }

  function stop() {
    tiles.stop();
    resizes.disconnect();
    unwatch();
    cancelAnimationFrame(planned);
    clearTimeout(patience);
    clearTimeout(soon);
  }

  return { element: parts.element, update, goTo, drawn, stop };
}
