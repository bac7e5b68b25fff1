// The whole text as a strip: the heaviest and the mean weight of each stretch, and what is in view; it scrolls.

import { draw, svg } from '../dom.js';
import { whole } from '../numbers.js';

const HEAVY_WIDTH = 9; // of the strip for the heaviest; the mean has the rest
const WIDTH = 14;
const KEYS = { ArrowUp: -0.01, ArrowDown: 0.01, PageUp: -0.1, PageDown: 0.1, Home: -1, End: 1 };

/** A strip beside the text with the id `controls`; `go` is called with the token to show. */
export function makeMinimap({ controls, go }) {
  const marks = svg.g(null);
  const port = svg.rect({ class: 'port', x: 0.6, width: WIDTH - 1.2 });
  const element = svg.svg(
    {
      class: 'mini',
      viewBox: `0 0 ${WIDTH} 1`,
      preserveAspectRatio: 'none',
      role: 'scrollbar',
      tabindex: 0,
      'aria-controls': controls,
      'aria-orientation': 'vertical',
      'aria-label': 'Place in the text',
      'aria-valuemin': 0,
      'aria-valuemax': 0,
      'aria-valuenow': 0,
    },
    marks,
    port,
  );
  let total = 1;
  let middle = 0;
  let shown = null;

  const clamped = (token) => Math.max(0, Math.min(total - 1, Math.round(token)));

  function goTo(event) {
    const box = element.getBoundingClientRect();
    go(clamped(((event.clientY - box.top) / box.height) * total));
  }

  element.addEventListener('pointerdown', (event) => {
    element.setPointerCapture(event.pointerId);
    goTo(event);
  });
  element.addEventListener('pointermove', (event) => {
    if (element.hasPointerCapture(event.pointerId)) goTo(event);
  });
  element.addEventListener('keydown', (event) => {
    if (!KEYS[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    go(clamped(middle + Math.sign(KEYS[event.key]) * Math.max(1, Math.abs(KEYS[event.key]) * total)));
  });

  return {
    element,
    /** Bins of a line whose first item is token `shift` of `count`. */
    update(bins, length, shift, count, shade) {
      if (shown === bins && total === count) return;
      [shown, total] = [bins, Math.max(1, count)];
      const size = Math.max(1, Math.ceil(length / Math.max(1, bins?.max.length ?? 1)));
      const top = (bin) => (shift + bin * size) / total;
      draw(
        marks,
        strips(bins?.max, 0, HEAVY_WIDTH, shade, top),
        strips(bins?.mean, HEAVY_WIDTH, WIDTH - HEAVY_WIDTH, shade, top),
      );
      element.setAttribute('aria-valuemax', total - 1);
    },
    /** The tokens in view. */
    view(from, to) {
      middle = (from + to) / 2;
      port.setAttribute('y', from / total);
      port.setAttribute('height', Math.max(0.004, (to - from) / total));
      element.setAttribute('aria-valuenow', clamped(middle));
      element.setAttribute(
        'aria-valuetext',
        `tokens ${whole(from)} to ${whole(Math.max(from, to - 1))} of ${whole(total)}`,
      );
    },
  };
}

/** One path for each step of the scale, whatever the number of bins. */
function strips(values, left, width, shade, top) {
  const paths = Array.from({ length: 21 }, () => '');
  values?.forEach((value, bin) => {
    paths[shade(value)] += `M${left} ${top(bin)}h${width}V${top(bin + 1) + 0.0004}h${-width}z`;
  });
  return paths.map((path, step) => (path ? svg.path({ class: `w${step}`, d: path }) : null));
}
