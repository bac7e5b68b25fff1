// What is drawn over the pixels of a map: numbers of cells, the chosen row, column and pair, rings, names at the side.

import { amount, shortAmount, stepOf } from './colours.js';
import { itemName, shortened } from './labels.js';
import { seenBy, seenFrom, sees } from './sight.js';
import { roomForNumbers } from './viewport.js';

export const RING_SIZE = 8; // pixels
const FRAMED = 9; // cells at least so large are framed, smaller ones ringed
const SLANT = -Math.PI / 3;
const NAME_SIZE = 12;
const MOST_SIDE_NAME = 16; // characters beside a map

/** Draw all marks of a scene: { port, layer, frame, palette, view, rings, cursor, few, at, floor, top, plain }. */
export function drawMarks(pen, scene) {
  const { frame } = scene;
  if (scene.few) drawNames(pen, scene);
  pen.save();
  pen.beginPath();
  pen.rect(frame.left, frame.top, frame.width, frame.height);
  pen.clip();
  pen.translate(frame.left, frame.top);
  if (scene.few) drawGaps(pen, scene);
  if (roomForNumbers(scene.port)) drawNumbers(pen, scene);
  drawCursor(pen, scene);
  pen.restore();
  pen.save();
  pen.translate(frame.left, frame.top);
  drawLines(pen, scene);
  drawUnseen(pen, scene);
  drawRings(pen, scene);
  pen.restore();
}

/** The place of a cell in the frame. */
function boxOf({ port }, { row, column }) {
  const x = (column - port.x) * port.sx,
    y = (row - port.y) * port.sy;
  return { x, y, width: port.sx, height: port.sy, cx: x + port.sx / 2, cy: y + port.sy / 2 };
}

function isInside({ frame }, { cx, cy }) {
  return cx >= 0 && cy >= 0 && cx <= frame.width && cy <= frame.height;
}

/** The cells that the frame shows. */
function shownCells({ port, layer, frame }) {
  return {
    rows: [Math.floor(port.y), Math.min(layer.queries, Math.ceil(port.y + frame.height / port.sy))],
    columns: [Math.floor(port.x), Math.min(layer.keys, Math.ceil(port.x + frame.width / port.sx))],
  };
}

/** Hairlines of paper between cells. */
function drawGaps(pen, scene) {
  const { port, frame, palette } = scene;
  const { rows, columns } = shownCells(scene);
  pen.fillStyle = palette.paper;
  for (let j = columns[0] + 1; j < columns[1]; j++) pen.fillRect((j - port.x) * port.sx - 0.5, 0, 1, frame.height);
  for (let i = rows[0] + 1; i < rows[1]; i++) pen.fillRect(0, (i - port.y) * port.sy - 0.5, frame.width, 1);
}

function drawNumbers(pen, scene) {
  const { layer, palette, at, floor, top, plain, view } = scene;
  const { rows, columns } = shownCells(scene);
  pen.textAlign = 'center';
  pen.textBaseline = 'middle';
  for (let row = rows[0]; row < rows[1]; row++) {
    for (let column = columns[0]; column < columns[1]; column++) {
      const weight = sees(layer, row, column) ? at(row, column) : undefined;
      if (weight === undefined) continue;
      const { cx, cy } = boxOf(scene, { row, column });
      const bold = row === view.row && column === view.column;
      pen.font = `${bold ? 700 : 400} 11px ${palette.sans}`;
      pen.fillStyle = palette.on[stepOf(weight, floor, top)];
      pen.fillText(shortAmount(weight, plain), cx, cy);
    }
  }
}

/** Say once in each part that is not seen why it is not, if there is room. */
function drawUnseen(pen, scene) {
  const { layer, port } = scene;
  if (layer.sees.high !== null) {
    drawSaying(pen, scene, 'later: not seen', (row, left) => (left - seenBy(layer, row)[1]) * port.sx);
  }
  if (layer.sees.low !== null) {
    const gap = (row, left, right) => (seenBy(layer, row)[0] - right) * port.sx;
    drawSaying(pen, scene, 'outside the window: not seen', gap);
  }
}

/** Write a sentence where it is farthest from what is seen, `gap` pixels away at a row, and from the edges. */
function drawSaying(pen, { port, layer, frame, palette }, text, gap) {
  pen.font = `400 12px ${palette.sans}`;
  const half = pen.measureText(text).width / 2 + 6;
  const rowAt = (y) => Math.max(0, Math.min(layer.queries - 1, Math.floor(port.y + y / port.sy)));
  const columnAt = (x) => port.x + x / port.sx;
  let best = null;
  for (let y = 12; y <= frame.height - 12; y += 12) {
    for (let x = half; x <= frame.width - half; x += 12) {
      const gaps = [y - 9, y + 9].map((edge) => gap(rowAt(edge), columnAt(x - half), columnAt(x + half)));
      const most = frame.width / 5;
      const room = Math.min(...gaps, most) + Math.min(x - half, frame.width - x - half, y, frame.height - y, most);
      if (Math.min(...gaps) >= 0 && (!best || room > best.room)) best = { x, y, room };
    }
  }
  if (best) writeHaloed(pen, palette, text, best.x, best.y, palette.ink3, 'center');
}

/** Text that stays readable on any ground. */
function writeHaloed(pen, palette, text, x, y, colour, align) {
  pen.textAlign = align;
  pen.textBaseline = 'middle';
  pen.lineJoin = 'round';
  pen.lineWidth = 4;
  pen.strokeStyle = palette.paper;
  pen.strokeText(text, x, y);
  pen.fillStyle = colour;
  pen.fillText(text, x, y);
}

/** The chosen row and the chosen column: the one whose weights are listed in ink, the other fainter, and not at all
 * where its name is at the side. */
function drawLines(pen, scene) {
  const { frame, palette, view, layer, few } = scene;
  const box = boxOf(scene, view);
  const main = view.by === 'row';
  pen.save();
  pen.beginPath();
  pen.rect(-1, -1, frame.width + 2, frame.height + 2);
  const ringed = isInside(scene, box) && box.width < FRAMED;
  if (ringed) pen.arc(box.cx, box.cy, RING_SIZE, 0, 7); // keep that cell in sight
  pen.clip('evenodd');
  if (view.column !== null && !(few && main)) {
    const { y, end } = reachOf(scene, seenFrom(layer, view.column), 'y');
    drawLine(pen, box.x, y, box.width, end - y, main ? palette.edge : palette.ink, main);
  }
  if (view.row !== null && !(few && !main)) {
    const { x, end } = reachOf(scene, seenBy(layer, view.row), 'x');
    drawLine(pen, x, box.y, end - x, box.height, main ? palette.ink : palette.edge, !main);
  }
  pen.restore();
}

/** From the first to the end of some rows ('y') or columns ('x'), in pixels. */
function reachOf({ port }, [first, end], side) {
  const size = side === 'x' ? port.sx : port.sy;
  return { [side]: (first - port[side]) * size, end: (end - port[side]) * size };
}

/** A frame round a row or column of cells, or one line where these are thin. */
function drawLine(pen, x, y, width, height, colour, faint) {
  pen.lineWidth = faint ? 1 : 1.2;
  pen.strokeStyle = colour;
  pen.fillStyle = colour;
  pen.setLineDash(faint ? [3, 3] : []);
  if (width <= 0 || height <= 0) return;
  if (Math.min(width, height) >= 4) pen.strokeRect(x, y, width, height);
  else {
    pen.beginPath();
    if (width > height) {
      pen.moveTo(x, y + height / 2);
      pen.lineTo(x + width, y + height / 2);
    } else {
      pen.moveTo(x + width / 2, y);
      pen.lineTo(x + width / 2, y + height);
    }
    pen.stroke();
  }
  pen.setLineDash([]);
}

/** The heaviest cells in ink, the chosen pair in its colour, each with its number. */
function drawRings(pen, scene) {
  const { palette, view, rings, plain } = scene;
  const taken = [];
  const chosen = boxOf(scene, view);
  const hasPair = view.row !== null && view.column !== null && isInside(scene, chosen);
  if (hasPair) taken.push(chosen);
  for (const { row, column, weight } of rings) {
    const box = boxOf(scene, { row, column });
    const near = taken.some(
      ({ cx, cy }) => Math.abs(cx - box.cx) < 6 * RING_SIZE && Math.abs(cy - box.cy) < 4 * RING_SIZE,
    );
    if (near || !isInside(scene, box) || box.width >= FRAMED) continue;
    taken.push(box);
    drawRing(pen, scene, box, palette.ink, 1.5, amount(weight, plain));
  }
  if (hasPair) drawRing(pen, scene, chosen, palette.pair, 2.5, view.pair === null ? '' : amount(view.pair, plain));
}

function drawRing(pen, { frame, palette }, { x, y, width, height, cx, cy }, colour, thick, text) {
  pen.strokeStyle = colour;
  pen.lineWidth = thick;
  pen.beginPath();
  if (Math.min(width, height) >= FRAMED) {
    pen.roundRect(x - 0.5, y - 0.5, width + 1, height + 1, 2);
    pen.stroke();
    return;
  }
  pen.arc(cx, cy, RING_SIZE, 0, 7);
  pen.stroke();
  pen.font = `600 12px ${palette.sans}`;
  const half = pen.measureText(text).width / 2 + 2;
  const at = Math.max(half, Math.min(frame.width - half, cx));
  writeHaloed(pen, palette, text, at, cy > RING_SIZE + 18 ? cy - RING_SIZE - 8 : cy + RING_SIZE + 9, colour, 'center');
}

/** The cell under the pointer or the arrow keys. */
function drawCursor(pen, scene) {
  const { palette, cursor } = scene;
  if (!cursor) return;
  const { x, y, width, height, cx, cy } = boxOf(scene, cursor);
  pen.strokeStyle = palette.ink;
  pen.lineWidth = 1;
  if (Math.min(width, height) >= FRAMED) pen.strokeRect(x + 1, y + 1, width - 2, height - 2);
  else pen.strokeRect(cx - 4.5, cy - 4.5, 9, 9);
}

/** Names at the side of a small matrix, those of the chosen pair in bold. */
function drawNames(pen, scene) {
  const { port, frame, palette, view } = scene;
  const { rows, columns } = shownCells(scene);
  const style = (chosen, colour) => {
    pen.font = `${chosen ? 700 : 400} ${NAME_SIZE}px ${palette.serif}`;
    pen.fillStyle = chosen ? colour : palette.ink2;
  };
  const [rowColour, columnColour] = view.by === 'row' ? [palette.ink, palette.pair] : [palette.pair, palette.ink];
  pen.textBaseline = 'middle';
  const everyRow = Math.ceil(11 / port.sy),
    everyColumn = Math.ceil(11 / port.sx);
  for (let i = rows[0]; i < rows[1]; i++) {
    const y = (i + 0.5 - port.y) * port.sy;
    if ((i % everyRow && i !== view.row) || y < 0 || y > frame.height) continue;
    style(i === view.row, rowColour);
    pen.textAlign = 'right';
    pen.fillText(sideName(view.names.queries, i), frame.left - 5, frame.top + y);
  }
  for (let j = columns[0]; j < columns[1]; j++) {
    const x = (j + 0.5 - port.x) * port.sx;
    if ((j % everyColumn && j !== view.column) || x < 0 || x > frame.width) continue;
    style(j === view.column, columnColour);
    pen.save();
    pen.translate(frame.left + x + 2, frame.top - 5);
    pen.rotate(SLANT);
    pen.textAlign = 'left';
    pen.fillText(sideName(view.names.keys, j), 0, 0);
    pen.restore();
  }
}

function sideName(names, index) {
  return shortened(itemName(names, index), MOST_SIDE_NAME);
}

/** Room for names beside a small matrix in a box of a width, in pixels. */
export function roomForNames(pen, palette, layer, names, width) {
  pen.font = `700 ${NAME_SIZE}px ${palette.serif}`;
  const widths = (list, count) => Array.from({ length: count }, (_, k) => pen.measureText(sideName(list, k)).width);
  const across = widths(names.keys, layer.keys),
    longest = Math.max(...across);
  const left = Math.ceil(Math.max(...widths(names.queries, layer.queries)) + 9),
    size = (width - left) / layer.keys;
  const beyond = across.map((length, j) => length * Math.cos(SLANT) + 4 - (layer.keys - j - 0.5) * size);
  return {
    left,
    top: Math.ceil(longest * Math.sin(-SLANT) + 12),
    right: Math.ceil(Math.max(2, ...beyond)),
  };
}
