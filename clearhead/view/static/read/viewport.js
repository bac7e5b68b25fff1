// Which part of the matrix a map shows, and how large: `x` and `y` are the column and row at the upper left corner of a
// frame, `sx` and `sy` the width and height of a cell. All values are frozen, in cells and CSS pixels.

const LARGEST = 64; // pixels of a cell
const READABLE = 49; // enough for its number

/** The whole matrix. */
export function fitted({ queries, keys }, { width, height }) {
  return Object.freeze({ x: 0, y: 0, sx: width / keys, sy: height / queries });
}

/** The nearest view that does not leave the matrix. */
function withinMatrix(port, layer, frame) {
  const least = fitted(layer, frame);
  const sx = Math.max(least.sx, Math.min(port.sx, Math.max(LARGEST, least.sx)));
  const sy = Math.max(least.sy, Math.min(port.sy, Math.max(LARGEST, least.sy)));
  const x = Math.max(0, Math.min(port.x, layer.keys - frame.width / sx));
  const y = Math.max(0, Math.min(port.y, layer.queries - frame.height / sy));
  return Object.freeze({ x, y, sx, sy });
}

/** Larger by a factor; the cell at (px, py) of the frame stays where it is. */
export function zoomed(port, factor, [px, py], layer, frame) {
  const { sx, sy } = withinMatrix({ ...port, sx: port.sx * factor, sy: port.sy * factor }, layer, frame);
  return withinMatrix({ x: port.x + px / port.sx - px / sx, y: port.y + py / port.sy - py / sy, sx, sy }, layer, frame);
}

/** Moved by so many pixels. */
export function moved(port, dx, dy, layer, frame) {
  return withinMatrix({ ...port, x: port.x + dx / port.sx, y: port.y + dy / port.sy }, layer, frame);
}

/** The same place in a frame of another size or with other room for names: fitted stays fitted, and what is in the
 * middle of the box stays there. */
export function resized(port, layer, before, frame) {
  const least = fitted(layer, before);
  if (port.sx <= least.sx * 1.001 && port.sy <= least.sy * 1.001) return fitted(layer, frame);
  const x = port.x + (before.width - before.left - frame.width + frame.left) / 2 / port.sx;
  const y = port.y + (before.height - before.top - frame.height + frame.top) / 2 / port.sy;
  return withinMatrix({ ...port, x, y }, layer, frame);
}

/** With a cell in the middle of whole cells that are large enough for their numbers. */
export function centred({ row, column }, layer, frame) {
  const least = fitted(layer, frame);
  const across = Math.max(1, Math.round(frame.width / READABLE)),
    down = Math.max(1, Math.round(frame.height / READABLE));
  const sx = Math.max(least.sx, frame.width / across),
    sy = Math.max(least.sy, frame.height / down);
  return withinMatrix({ x: column - Math.floor(across / 2), y: row - Math.floor(down / 2), sx, sy }, layer, frame);
}

/** Moved as little as possible to show a cell. */
export function showing(port, { row, column }, layer, frame) {
  const shift = (cell, first, size, room) => {
    const before = (cell - first) * size,
      after = (cell + 1 - first) * size - room;
    return before < 0 ? before : after > 0 ? after : 0;
  };
  const dx = shift(column, port.x, port.sx, frame.width),
    dy = shift(row, port.y, port.sy, frame.height);
  return dx || dy ? moved(port, dx, dy, layer, frame) : port;
}

/** The cell under a point of the frame, or null. */
export function cellUnder(port, [px, py], { queries, keys }, { width, height }) {
  if (px < 0 || py < 0 || px >= width || py >= height) return null;
  const row = Math.min(queries - 1, Math.floor(port.y + py / port.sy)),
    column = Math.min(keys - 1, Math.floor(port.x + px / port.sx));
  return { row, column };
}

/** Whether a cell is large enough for its number. */
export function roomForNumbers({ sx, sy }) {
  return sx >= 42 && sy >= 15;
}
