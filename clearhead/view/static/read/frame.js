// The map's elements, and where in its box the matrix stands.

import { html } from '../dom.js';
import { EDGES, roomForNames } from './marks.js';

const LEAST_SIDES = 0.25; // of height to width: a few rows still have room
const OUTSIDE = 12; // pixels round a box
const LOW = 0.7; // of a cell's height to its width in a small rectangle

/** All elements that stay; the map fills them. */
export function partsOf() {
  const base = html.canvas({ class: 'pixels', width: 0, height: 0, 'aria-hidden': 'true' }),
    over = html.canvas({ class: 'marks', 'aria-hidden': 'true' });
  const probe = html.span({ class: 'probe', 'aria-hidden': 'true' });
  const box = html.div({ class: 'mapbox', tabindex: 0, role: 'application', 'aria-label': 'Map' }, base, over);
  const choices = html.div({ class: 'choices' });
  const zoom = html.div(
    { class: 'zoom', role: 'group', 'aria-label': 'Zoom' },
    html.button({ class: 'quiet icon', 'aria-label': 'Out', 'data-do': 'zoom', 'data-by': 0.5 }, '−'),
    html.button({ class: 'quiet icon', 'aria-label': 'In', 'data-do': 'zoom', 'data-by': 2 }, '+'),
  );
  const status = html.div({ class: 'status' }),
    legend = html.div(null),
    where = html.p({ class: 'cap where' });
  const words = html.div({ class: 'words' }, status, legend, where);
  const cells = html.div({ class: 'cellpart' });
  const head = html.div({ class: 'headline' }, html.h2(null, 'Map'), choices, zoom);
  const element = html.section({ class: 'mappane', 'aria-label': 'Map' }, head, box, words, cells, probe);
  return { element, box, base, over, probe, choices, zoom, status, legend, where, words, cells };
}

/** One of several, as buttons. */
export function segment(name, values, chosen) {
  return html.span(
    { class: 'seg', role: 'radiogroup', 'aria-label': name, 'data-key': name },
    values.map((value) => {
      const on = value === chosen;
      const told = { 'data-do': 'choice', 'data-value': value };
      return html.button({ role: 'radio', 'aria-checked': String(on), tabindex: on ? 0 : -1, ...told }, value);
    }),
  );
}

const ROOMLESS = { left: 0, top: 0, right: 0 };

/** Where the matrix stands in its box, which is made as high as it needs: { left, top, width, height, bottom }. Names
 * of large cells take their room from the matrix, so that the box stays as it is. */
export function frameFor({ box, base }, palette, { layer, part, names }, { few, named }) {
  const pen = base.getContext('2d');
  const room = few ? roomForNames(pen, palette, layer, names, box.clientWidth) : named ? EDGES : ROOMLESS;
  const width = Math.max(0, box.clientWidth - room.left - room.right);
  const sides = ((few && part.crosses ? LOW : 1) * layer.queries) / layer.keys;
  const whole = Math.round((few ? width : box.clientWidth) * Math.max(LEAST_SIDES, Math.min(1, sides))),
    height = few ? whole : whole - room.top;
  const bottom = room.top + height + (few ? 2 : 0);
  box.style.setProperty('height', `${bottom}px`);
  box.classList.toggle('few', few);
  base.style.setProperty('left', `${room.left}px`);
  base.style.setProperty('top', `${room.top}px`);
  base.style.setProperty('width', `${width}px`);
  base.style.setProperty('height', `${height}px`);
  return { left: room.left, top: room.top, width, height, bottom };
}

/** A cleared canvas over a box of so many CSS pixels, sharp on this screen; marks at its edges may stand out. */
export function penOf(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round((width + 2 * OUTSIDE) * ratio);
  canvas.height = Math.round((height + 2 * OUTSIDE) * ratio);
  canvas.style.setProperty('width', `${width + 2 * OUTSIDE}px`);
  canvas.style.setProperty('height', `${height + 2 * OUTSIDE}px`);
  const pen = canvas.getContext('2d');
  pen.setTransform(ratio, 0, 0, ratio, OUTSIDE * ratio, OUTSIDE * ratio);
  return pen;
}
