// The plane: vectors as arrows to drag, the angle of the chosen pair, and the sum tip to tail, inside the hull.

import { dot } from './attention.js';
import { html, svg } from '../dom.js';
import { hue, shownName } from './items.js';
import { fixed, number, typed } from '../numbers.js';

const WIDE = 400,
  HIGH = 250,
  MARGIN = 34,
  LETTER = 6.6,
  LINE = 14;
let held = null; // the view while an arrow is dragged: it must not move under the hand

/** Freeze the current view, or release it. */
export function holdView(view) {
  held = view;
}

/** The position of the plane's origin, and the pixels per unit. */
export function viewOf(p) {
  if (held) return held;
  const points = [
    [0, 0],
    ...p.shown.values,
    p.q[p.row],
    p.found[p.column],
    ...(p.altered ? [p.shown.outputs[p.row]] : []),
  ];
  const across = points.map((x) => x[0]),
    up = points.map((x) => x[1]);
  const [left, right] = [Math.min(...across), Math.max(...across)],
    [low, high] = [Math.min(...up), Math.max(...up)];
  const unit = Math.min((WIDE - 2 * MARGIN) / (right - left || 1), (HIGH - 2 * MARGIN) / (high - low || 1), 147);
  return { unit, x: WIDE / 2 - (unit * (left + right)) / 2, y: HIGH / 2 + (unit * (low + high)) / 2 };
}

export function planeView(state, p, veiled) {
  if (!p.flat) return barsView(p, veiled);
  const view = viewOf(p),
    at = ([a, b]) => [view.x + view.unit * a, view.y - view.unit * b];
  const seen = [...Array(p.n).keys()].filter((j) => p.shown.seen[p.row][j]);
  const y = p.shown.outputs[p.row],
    mixes = !veiled && !p.nothing && state.formula !== 'no-values';
  const grid = gridLines(view);
  const hull = hullOf(seen.map((j) => p.shown.values[j])).map(at);
  const name = shownName(p.names[p.row]);
  return html.figure(
    null,
    svg.svg(
      {
        class: 'plane',
        viewBox: `0 0 ${WIDE} ${HIGH}`,
        role: 'group',
        'aria-label': `Plane: the vectors as arrows${mixes ? `, the new ${name} at ${number(y[0])}, ${number(y[1])}` : ''}`,
      },
      grid.drawn,
      svg.polygon({ class: 'hull', points: hull.map((point) => point.join(',')).join(' ') }),
      angle(p, at),
      p.shown.values.map((x, j) => arrow(p, j, at(x), at([0, 0]))),
      p.alike ? null : askers(p, at),
      mixes ? tails(p, seen, at) : null,
      mixes ? svg.circle({ class: 'new', cx: at(y)[0], cy: at(y)[1], r: 6 }) : null,
      labelsOf(p, at, mixes ? at(y) : null, grid.boxes),
      p.alike ? p.v.map((x, j) => tip(p, j, at(x))) : null,
    ),
    html.figcaption(null, captionOf(state, p, veiled)),
  );
}

function captionOf(state, p, veiled) {
  if (veiled) return 'The new vector is hidden until you answer.';
  if (p.nothing) return 'There are no weights, and so no new vector.';
  if (p.plainWeights) return 'These may be negative, or above 1: the new vector may lie outside the hull.';
  if (state.formula === 'no-values') return 'Without values there is no new vector to draw.';
  if (state.formula === 'mask-after-softmax')
    return 'Weights that add up to less than 1 pull the sum towards the origin.';
  const what = state.formula === 'values=keys' ? 'keys' : 'values';
  if (!p.alike) return `Arrows: ${what}. q asks, k is found; the dotted sum of ${what} ends inside their hull.`;
  return `Dotted: weight × vector, tip to tail. It ends inside the hull. All rows: (${p.n},${p.n}) · (${p.n},2) → (${p.n},2).`;
}

function gridLines(view) {
  const step =
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
      .map((s) => s * 10 ** Math.floor(Math.log10(70 / view.unit)))
      .concat([1e-9])
      .find((s) => s * view.unit >= 45) ?? 1;
  const lines = [],
    boxes = [];
  const tick = (x, base, anchor, text) => {
    const left = anchor === 'end' ? x - text.length * 6 : x - text.length * 3;
    boxes.push({ left, right: left + text.length * 6, top: base - 9, bottom: base + 1 });
    lines.push(svg.text({ class: 'tick', x, y: base, 'text-anchor': anchor }, text));
  };
  const ends = (from, to) => [Math.ceil(Math.min(from, to) / step), Math.floor(Math.max(from, to) / step)];
  const [a, b] = ends(-view.x / view.unit, (WIDE - view.x) / view.unit);
  for (let k = a; k <= b; k++) {
    const x = view.x + k * step * view.unit;
    lines.push(svg.line({ class: k ? 'grid' : 'axis', x1: x, x2: x, y1: 0, y2: HIGH }));
    if (k && x > 12 && x < WIDE - 12) tick(x, Math.min(HIGH - 4, Math.max(12, view.y + 12)), 'middle', typed(k * step));
  }
  const [c, d] = ends((view.y - HIGH) / view.unit, view.y / view.unit);
  for (let k = c; k <= d; k++) {
    const y = view.y - k * step * view.unit;
    lines.push(svg.line({ class: k ? 'grid' : 'axis', x1: 0, x2: WIDE, y1: y, y2: y }));
    if (k && y > 8 && y < HIGH - 4) tick(Math.min(WIDE - 14, Math.max(26, view.x - 5)), y + 4, 'end', typed(k * step));
  }
  return { drawn: lines, boxes };
}

function arrow(p, j, [x, y], [ox, oy]) {
  const strong = j === p.row || j === p.column,
    length = Math.hypot(x - ox, y - oy);
  const kind = `vec ${hue(j)}${strong ? ' strong' : ''}`;
  if (length < 1) return svg.g({ class: kind }, svg.circle({ class: 'dot', cx: ox, cy: oy, r: 3 }));
  const head = Math.min(10, length),
    ux = (x - ox) / length,
    uy = (y - oy) / length;
  const points = [
    [x, y],
    [x - head * ux - 4.2 * uy, y - head * uy + 4.2 * ux],
    [x - head * ux + 4.2 * uy, y - head * uy - 4.2 * ux],
  ];
  return svg.g(
    { class: kind },
    svg.line({ x1: ox, y1: oy, x2: x - head * ux, y2: y - head * uy, 'stroke-width': strong ? 3 : 1.5 }),
    svg.polygon({ points: points.map((point) => point.map((n) => n.toFixed(1)).join(',')).join(' ') }),
  );
}

/** The chosen query and key, where these differ from the items. */
function askers(p, at) {
  const [ox, oy] = at([0, 0]);
  return [
    ['q', p.q[p.row], p.row, 'asks'],
    ['k', p.found[p.column], p.column, 'found'],
  ].map(([letter, x, j, kind]) => {
    const [a, b] = at(x);
    return svg.g(
      { class: `asker ${kind}` },
      svg.line({ x1: ox, y1: oy, x2: a, y2: b }),
      svg.circle({ cx: a, cy: b, r: 3 }),
      svg.text({ class: 'lab', x: a + 6, y: b - 5 }, `${letter}${j + 1}`),
    );
  });
}

function angle(p, at) {
  const a = p.q[p.row],
    b = p.found[p.column];
  if (p.row === p.column && p.alike) return null;
  const lengths = Math.hypot(...a) * Math.hypot(...b);
  if (!lengths) return null;
  const [ox, oy] = at([0, 0]),
    from = Math.atan2(a[1], a[0]),
    to = Math.atan2(b[1], b[0]);
  const degrees = (Math.acos(Math.min(1, Math.max(-1, dot(a, b) / lengths))) * 180) / Math.PI;
  let turn = to - from;
  if (turn > Math.PI) turn -= 2 * Math.PI;
  if (turn < -Math.PI) turn += 2 * Math.PI;
  const on = (by, r) => [ox + r * Math.cos(from + by * turn), oy - r * Math.sin(from + by * turn)];
  const right = Math.abs(degrees - 90) < 1e-9,
    [x1, y1] = on(0, 16),
    [x2, y2] = on(1, 16),
    [tx, ty] = on(0.5, 34);
  const path = right
    ? `M${x1} ${y1} L${x1 + x2 - ox} ${y1 + y2 - oy} L${x2} ${y2}`
    : `M${on(0, 20).join(' ')} A20 20 0 0 ${turn > 0 ? 0 : 1} ${on(1, 20).join(' ')}`;
  return svg.g(
    null,
    svg.path({ class: 'angle', d: path }),
    svg.text({ class: 'deg', x: tx, y: ty + 4, 'text-anchor': 'middle' }, `${fixed(degrees, 0)}°`),
  );
}

function tails(p, seen, at) {
  const weights = p.shown.rows[p.row].weights,
    sum = [0, 0];
  return seen.map((j) => {
    const [x1, y1] = at(sum);
    p.shown.values[j].forEach((x, c) => {
      sum[c] += weights[j] * x;
    });
    const [x2, y2] = at(sum);
    return svg.g(
      { class: hue(j) },
      svg.line({ class: 'tail', x1, y1, x2, y2 }),
      svg.circle({ class: 'joint', cx: x2, cy: y2, r: 1.8 }),
    );
  });
}

/** A handle on an arrow's tip, for the mouse, for touch and for the arrow keys. */
function tip(p, j, [x, y]) {
  const [a, b] = p.v[j];
  return svg.circle({
    class: 'tip',
    cx: x,
    cy: y,
    r: 11,
    tabindex: 0,
    role: 'slider',
    'data-tip': j,
    'aria-label': `${p.labels[j]}: arrow keys move it`,
    'aria-valuenow': a,
    'aria-valuetext': `${typed(a)}, ${typed(b)}`,
  });
}

/** Names next to tips: each in the first free place around its tip, farther out where it is crowded. */
function labelsOf(p, at, y, ticks) {
  const groups = new Map();
  p.shown.values.forEach((x, j) => {
    const key = at(x)
      .map((n) => Math.round(n / 5))
      .join();
    groups.set(key, [...(groups.get(key) ?? []), j]);
  });
  const wanted = [...groups.values()].map((all) => ({
    text: [...new Set(all.map((j) => p.labels[j]))].map(shownName).join(', '),
    point: at(p.shown.values[all[0]]),
    kind: all.includes(p.column) && p.column !== p.row ? 'lab pairc' : all.includes(p.row) ? 'lab me' : 'lab',
  }));
  if (y) wanted.push({ text: `new ${shownName(p.names[p.row])}`, point: y, kind: 'lab new-lab' });
  wanted.sort((a, b) => b.kind.length - a.kind.length);
  const taken = p.shown.values
    .map((x) => at(x))
    .concat(y ? [y] : [])
    .map(([x, z]) => ({ left: x - 4, right: x + 4, top: z - 4, bottom: z + 4 }))
    .concat(ticks);
  return wanted.map(({ text, point, kind }) => {
    const { x, base, box, far } = freePlace(text.length * LETTER, point, at([0, 0]), taken);
    taken.push(box);
    return svg.g(
      null,
      far
        ? svg.line({ class: 'lead', x1: point[0], y1: point[1], x2: x + (box.right - box.left) / 2, y2: base - 4 })
        : null,
      svg.text({ class: kind, x, y: base }, text),
    );
  });
}

function freePlace(wide, [px, py], [ox, oy], taken) {
  const away = Math.atan2(py - oy, px - ox);
  let best = null;
  for (const far of [12, 24, 38, 54]) {
    for (const turn of [0, 0.7, -0.7, 1.4, -1.4, 2.2, -2.2, Math.PI]) {
      const x = px + far * Math.cos(away + turn) - (Math.cos(away + turn) < 0 ? wide : 0),
        y = py + far * Math.sin(away + turn);
      const left = Math.min(WIDE - wide - 3, Math.max(3, x)),
        base = Math.min(HIGH - 5, Math.max(12, y + 4));
      const box = { left, right: left + wide, top: base - LINE + 3, bottom: base + 3 };
      const cost = taken.reduce((all, other) => all + overlap(box, other), 0) + far * 0.5;
      if (!best || cost < best.cost) best = { x: left, base, box, cost, far: far > 30 };
    }
  }
  return best;
}

function overlap(a, b) {
  const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left),
    high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return wide > 0 && high > 0 ? wide * high : 0;
}

/** The corners of the convex hull of some points, in order. */
function hullOf(points) {
  const sorted = [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  if (sorted.length < 3) return sorted;
  const side = (o, a, b) => (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0]);
  const half = (all) =>
    all
      .reduce((kept, point) => {
        while (kept.length > 1 && side(kept.at(-2), kept.at(-1), point) <= 0) kept.pop();
        return [...kept, point];
      }, [])
      .slice(0, -1);
  return [...half(sorted), ...half(sorted.reverse())];
}

/** Vectors of more than two numbers: the item's numbers next to the new ones. */
function barsView(p, veiled) {
  const x = p.v[p.row],
    y = p.shown.outputs[p.row].slice(0, x.length),
    count = Math.min(16, x.length);
  const largest = Math.max(1e-9, ...x.slice(0, count).map(Math.abs), ...y.slice(0, count).map(Math.abs)),
    step = (WIDE - 20) / count;
  const bar = (value, c, at, kind) =>
    svg.rect({
      class: kind,
      x: 10 + c * step + at * step * 0.4,
      width: step * 0.38,
      y: HIGH / 2 - Math.max(0, value / largest) * 105,
      height: Math.max(0.5, (Math.abs(value) / largest) * 105),
    });
  const name = shownName(p.names[p.row]);
  return html.figure(
    null,
    svg.svg(
      {
        class: 'plane',
        viewBox: `0 0 ${WIDE} ${HIGH}`,
        role: 'img',
        'aria-label': `The first ${count} of ${x.length} numbers of ${name}, and of the new ${name}`,
      },
      svg.line({ class: 'axis', x1: 0, x2: WIDE, y1: HIGH / 2, y2: HIGH / 2 }),
      [...Array(count).keys()].map((c) =>
        svg.g(null, bar(x[c], c, 0.1, 'before'), veiled ? null : bar(y[c] ?? 0, c, 1.1, 'after')),
      ),
    ),
    html.figcaption(
      { class: 'key' },
      html.i({ class: 'before' }),
      name,
      html.i({ class: 'after' }),
      `new ${name}`,
      x.length > count ? `; the first ${count} of ${x.length} numbers` : '',
    ),
  );
}
