// What a pane's state asks Python for, and what follows from a line of weights before any of it is drawn.

import { floorOf, stepOf, topOf } from './colours.js';

/** Whether a view is about what a state is about, its row aside. */
export function sameAbout(about, { reading, part, layer, heads, join, measure }) {
  return (
    about.reading === reading &&
    about.part === part &&
    about.layer === layer &&
    about.join === join &&
    about.measure === measure &&
    about.heads.join() === heads.join()
  );
}

/** Whether two states are answered by the same line. */
export function sameQuestion(a, b) {
  const at = ({ by, row, column }) => (by === 'row' ? row : column);
  return sameAbout(a, b) && a.by === b.by && at(a) === at(b) && a.without === b.without;
}

/** The heaviest item of a line; of a row, the first key aside, which rows rest on. */
export function heaviestOf({ top }, by) {
  return ((by === 'row' ? top.find(([item]) => item > 0) : null) ?? top[0])?.[0] ?? null;
}

/** How a line is shaded; without the first key, as if the others were all. */
export function scaleOf(line, { measure, without }, { sees }) {
  const share = without && measure === 'weight' ? 1 / Math.max(1e-9, 1 - line.first) : 1;
  const count = sees.high === null ? line.length : Math.max(1, line.seen[1] - line.seen[0]);
  const top = measure === 'value' ? topOf(line.values) : 1;
  const floor = floorOf(line.values, count, top);
  return {
    floor,
    top,
    plain: measure === 'value',
    step: (weight, at) => (without && !at ? 0 : stepOf(weight * share, floor, top)),
  };
}
