// Colours of weights: 21 steps from a floor computed for what is shown, and the legend that states it.

import { html, svg } from '../dom.js';
import { fixed, number, percent } from '../numbers.js';

export const STEPS = 20;
export const FEW_ITEMS = 40; // so few items share a weight of 1 that a linear scale tells them apart
const LEAST_RANGE = 10; // a logarithmic scale spans at least one power of ten
const TICKS_APART = 0.16; // ticks nearer than this part of the scale would touch
const FIRST_APART = 0.27; // the first has a sign and more digits

/** The weight at which colours of one line begin: an even share of its `count` items, rounded down to 1, 2 or 5 times a
 * power of ten; 0 for few items, which stands for a linear scale. */
export function floorOf(values, count = values.length) {
  if (count <= FEW_ITEMS) return 0;
  let sum = 0,
    largest = 0;
  for (const value of values) {
    sum += value;
    largest = Math.max(largest, value);
  }
  return roundDown(Math.min(sum / count, largest / LEAST_RANGE));
}

/** The floor of a picture of so many pixels: half of those that are not 0 are above it. */
export function floorOfPixels(values, top) {
  const bins = new Uint32Array(2048); // by the exponent and three more bits
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  let count = 0;
  for (const word of bits) {
    if (word === 0 || word >>> 31) continue;
    bins[word >>> 20] += 1;
    count += 1;
  }
  let below = 0,
    bin = 0;
  while (bin < 2047 && (below += bins[bin]) * 2 < count) bin += 1;
  const median = new Float32Array(Uint32Array.of(bin << 20).buffer)[0];
  return roundDown(Math.min(median, top / LEAST_RANGE));
}

/** The end of the scale: the largest value of some lists, rounded up to 1, 2 or 5 times a power of ten. */
export function topOf(...lists) {
  let largest = 0;
  for (const values of lists) for (const value of values) if (value > largest) largest = value;
  if (!largest) return 1;
  const down = roundDown(largest);
  if (down >= largest * 0.999999) return down;
  return roundDown(down * 2.55);
}

/** The nearest of 1, 2 or 5 times a power of ten that is not larger; 0 for 0. */
function roundDown(value) {
  if (!(value > 0)) return 0;
  const power = Math.floor(Math.log10(value) + 1e-9);
  const mantissa = value / 10 ** power;
  return Number(`${mantissa >= 4.9999999 ? 5 : mantissa >= 1.9999999 ? 2 : 1}e${power}`);
}

/** A weight's step, from 0 to 20: logarithmic above a floor, linear if the floor is 0. */
export function stepOf(weight, floor, top = 1) {
  if (!(weight > floor)) return 0;
  const part = floor ? Math.log(weight / floor) / Math.log(top / floor) : weight / top;
  return Math.min(STEPS, Math.round(STEPS * part));
}

/** The least weight of each step, for many weights at once. */
export function stepBounds(floor, top) {
  const bounds = new Float64Array(STEPS + 1);
  for (let step = 1; step <= STEPS; step++) {
    const part = (step - 0.5) / STEPS;
    bounds[step] = floor ? floor * (top / floor) ** part : top * part;
  }
  return bounds;
}

/** A weight as a share, or a plain number where it is a sum or is multiplied by a length. */
export function amount(value, plain = false) {
  return plain ? number(value) : percent(value);
}

/** The same where there is room for seven characters. */
export function shortAmount(value, plain = false) {
  if (plain) return number(value);
  if (value >= 0.00001 && value < 0.00095) return `${fixed(100 * value, value < 0.000095 ? 3 : 2)} %`;
  return percent(value).replace(/^([<>] [\d.]+) %$/, '$1');
}

/** An end of a scale, without decimals that say nothing. */
function scaleEnd(value, plain) {
  if (plain) return String(Number(value.toPrecision(3)));
  const shown = Number((100 * value).toPrecision(3));
  return shown && Math.abs(shown) < 1e-4 ? `${shown.toExponential(0).replace('-', '−')} %` : `${shown} %`;
}

/** The scale in one sentence. */
export function scaleSentence(floor, top = 1, plain = false) {
  if (!floor) return `Shaded evenly from 0 to ${scaleEnd(top, plain)}.`;
  const steps = STEPS / Math.log10(top / floor);
  const near = steps >= 9.5 ? steps.toFixed(0) : steps.toFixed(1).replace('.0', '');
  const [from, to] = [floor, top].map((end) => scaleEnd(end, plain));
  return `Shaded from ${from} to ${to}, each ten times as heavy ${near} steps darker.`;
}

/** The colours in a row, with what the first, the last and each power of ten between them stand for. */
export function legendView(floor, top = 1, plain = false) {
  const steps = Array.from({ length: STEPS + 1 }, (_, step) =>
    svg.rect({ class: `w${step}`, x: step, width: 1.03, height: 1 }),
  );
  const ticks = legendMarks(floor, top, plain).map(([part, text]) => {
    const anchor = part === 0 ? 'start' : part === 1 ? 'end' : 'middle';
    return svg.text({ x: `${(100 * part).toFixed(1)}%`, y: 11, 'text-anchor': anchor }, text);
  });
  return html.div(
    { class: 'legend', role: 'img', 'aria-label': scaleSentence(floor, top, plain) },
    svg.svg({ viewBox: '0 0 21 1', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, steps),
    svg.svg({ class: 'ticks', 'aria-hidden': 'true' }, ticks),
  );
}

/** What stands below the colours: [part of the scale, text]. */
export function legendMarks(floor, top = 1, plain = false) {
  return ticksOf(floor, top).map(([part, value]) => [
    part,
    `${part === 0 && floor ? '≤ ' : ''}${scaleEnd(value, plain)}`,
  ]);
}

/** Ends, and powers of ten between them that do not touch another; halves on a linear scale. */
function ticksOf(floor, top) {
  if (!floor)
    return [
      [0, 0],
      [0.5, top / 2],
      [1, top],
    ];
  const found = [
    [0, floor],
    [1, top],
  ];
  const span = Math.log10(top / floor);
  for (let power = Math.ceil(Math.log10(top)) - 1; 10 ** power > floor; power--) {
    const part = (power - Math.log10(floor)) / span;
    const free = found.every(([at]) => Math.abs(at - part) > (at ? TICKS_APART : FIRST_APART));
    if (free) found.push([part, Number(`1e${power}`)]);
  }
  return found;
}

const INKS = ['paper', 'ink', 'ink2', 'ink3', 'edge', 'line', 'pair'];

/** The theme's colours as the browser computes them inside an element: `steps` as pixels, `on` for numbers on them, and
 * inks and fonts. `before` is returned if nothing has changed. */
export function paletteOf(probe, before) {
  const computed = (name) => {
    probe.style.setProperty('color', `var(--${name})`);
    return getComputedStyle(probe).color;
  };
  const inks = Object.fromEntries(INKS.map((name) => [name, computed(name)]));
  const sign = Object.values(inks).join();
  if (before?.sign === sign) return before;
  const pen = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const pixel = (colour) => {
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return new Uint32Array(pen.getImageData(0, 0, 1, 1).data.buffer)[0];
  };
  const steps = Array.from({ length: STEPS + 1 }, (_, step) => computed(`w${step}`));
  const on = steps.map((_, step) => computed(`on-w${step}`));
  const family = (name) => {
    probe.style.setProperty('font-family', `var(--${name})`);
    return getComputedStyle(probe).fontFamily;
  };
  const fonts = { sans: family('sans'), serif: family('serif') };
  return { ...inks, sign, steps, on, ...fonts, pixels: Uint32Array.from(steps, pixel), empty: pixel(inks.paper) };
}
