// Weights over the picture that a vision model looked at: each patch is a key.

import { draw, html } from '../dom.js';
import { whole } from '../numbers.js';
import { amount, legendView, paletteOf, stepOf, STEPS } from './colours.js';
import { penOf } from './frame.js';
import { itemName } from './labels.js';

const CLEAREST = 0.72; // how much of the picture the heaviest weight covers
const PATCH_MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** `host` is the map's. */
export function makePatches({ request, choose, say }) {
  const image = html.img({ alt: '', draggable: 'false' }),
    over = html.canvas({ class: 'marks', 'aria-hidden': 'true' }),
    probe = html.span({ class: 'probe', 'aria-hidden': 'true' });
  const box = html.div({ class: 'picture', tabindex: 0, role: 'application' }, image, over, probe);
  const words = html.div({ class: 'words' });
  const element = html.div({ class: 'patches' }, box, words);
  let view = null;
  let cursor = null; // the patch under the pointer or the arrow keys
  let palette = null;
  let bare = false;
  let picture = { reading: null, state: 'none' }; // none, asked, here, or the sentence that says why not
  let asking = null;
  let planned = 0;

  const resizes = new ResizeObserver(() => plan());
  resizes.observe(box);

  function update(next) {
    if (!view || view.about.reading !== next.about.reading || view.part.name !== next.part.name) cursor = null;
    view = next;
    if (!view.part.grid) return;
    if (picture.reading !== view.about.reading) ask(view.about.reading);
    plan();
  }

  async function ask(reading) {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    picture = { reading, state: view.reading.picture ? 'asked' : 'none' };
    image.removeAttribute('src');
    if (!view.reading.picture) return;
    try {
      const { kind, data } = await request('picture', { reading }, signal);
      if (signal.aborted) return;
      image.src = `data:${kind};base64,${data}`;
      picture = { reading, state: 'here' };
    } catch (error) {
      if (signal.aborted) return;
      picture = { reading, state: error.message };
    }
    plan();
  }

  function plan() {
    planned ||= requestAnimationFrame(redraw);
  }

  function redraw() {
    planned = 0;
    if (!view?.part.grid || !box.clientWidth) return;
    palette = paletteOf(probe, palette);
    const { rows, columns } = view.part.grid;
    box.style.setProperty('aspect-ratio', `${columns} / ${rows}`);
    box.classList.toggle('bare', bare || picture.state !== 'here');
    const side = view.by === 'row' ? `what ${nameOf(view.row)} reads` : `who reads ${nameOf(view.column)}`;
    box.setAttribute('aria-label', `Picture of ${rows} by ${columns} patches: ${side}`);
    const scale = scaleOf();
    drawOver(scale);
    drawWordsOf(scale);
  }

  function scaleOf() {
    return { floor: 0, top: view.line?.values.reduce((most, value) => Math.max(most, value), 0) || 1 };
  }

  /** The weight of an item in the line that is shown. */
  function weightOf(index) {
    return view.line?.values[index];
  }

  function patchAt(index) {
    const { before, rows, columns } = view.part.grid;
    const at = index - before;
    return at >= 0 && at < rows * columns ? { row: Math.floor(at / columns), column: at % columns } : null;
  }

  function indexOf({ row, column }) {
    return view.part.grid.before + row * view.part.grid.columns + column;
  }

  function nameOf(index) {
    if (index === null || index === undefined) return 'nothing';
    return itemOf(view.by === 'row' ? 'keys' : 'queries', index);
  }

  function drawOver({ floor, top }) {
    const { rows, columns } = view.part.grid;
    const width = box.clientWidth,
      height = box.clientHeight;
    const pen = penOf(over, width, height);
    const place = ({ row, column }) => {
      const x = Math.round((column * width) / columns),
        y = Math.round((row * height) / rows);
      const right = Math.round(((column + 1) * width) / columns),
        bottom = Math.round(((row + 1) * height) / rows);
      return [x, y, right - x, bottom - y];
    };
    const alone = picture.state !== 'here';
    for (let row = 0; row < rows && !(bare && !alone); row++) {
      for (let column = 0; column < columns; column++) {
        const weight = weightOf(indexOf({ row, column }));
        if (weight === undefined) continue;
        const step = stepOf(weight, floor, top);
        const [x, y, w, h] = place({ row, column });
        pen.globalAlpha = alone ? 1 : (CLEAREST * step) / STEPS;
        pen.fillStyle = palette.steps[step];
        pen.fillRect(x, y, w - (alone ? 1 : 0), h - (alone ? 1 : 0));
      }
    }
    pen.globalAlpha = 1;
    const { looker, target } = ends();
    outline(pen, place, looker, palette.ink, 2);
    outline(pen, place, target, palette.pair, 2.5);
    if (cursor && ![looker, target].includes(indexOf(cursor))) outline(pen, place, indexOf(cursor), palette.ink, 1);
  }

  /** Whose weights are shown, if it is a patch of this picture itself, and the one it is compared with. */
  function ends() {
    const [looker, target] = view.by === 'row' ? [view.row, view.column] : [view.column, view.row];
    return { looker: view.part.crosses ? null : looker, target };
  }

  function outline(pen, place, index, colour, thick) {
    const patch = index === null || index === undefined ? null : patchAt(index);
    if (!patch) return;
    const [x, y, w, h] = place(patch);
    pen.lineWidth = thick + 2.5;
    pen.strokeStyle = palette.paper;
    pen.strokeRect(x, y, w, h);
    pen.lineWidth = thick;
    pen.strokeStyle = colour;
    pen.strokeRect(x, y, w, h);
  }

  function drawWordsOf({ floor, top }) {
    const { before, rows, columns } = view.part.grid;
    const count = view.line?.values.length ?? 0;
    const others = [...Array(before).keys()];
    for (let index = before + rows * columns; index < count; index++) others.push(index);
    const plain = view.about.measure === 'value';
    const { target, looker } = ends();
    const reason = ['none', 'asked', 'here'].includes(picture.state) ? null : picture.state;
    draw(
      words,
      html.p({ class: 'cap where' }, sentenceOf(cursor ? indexOf(cursor) : target)),
      html.p({ class: 'cap' }, pictureSentence(reason)),
      others.length &&
        html.p(
          { class: 'others' },
          others.map((index) => otherView(index, index === target, index === looker)),
        ),
      picture.state === 'here' &&
        html.label(
          { class: 'tick' },
          html.input({ type: 'checkbox', 'data-do': 'bare', checked: bare }),
          'the picture alone',
        ),
      legendView(floor, top, plain),
    );
  }

  function pictureSentence(reason) {
    if (reason) return reason;
    if (picture.state === 'none') return 'The picture was not kept; each square is one patch.';
    if (bare) return 'The picture alone; its weights are hidden.';
    return 'Each square is one patch; the picture is grey so that colour is weight.';
  }

  function otherView(index, isTarget, isLooker) {
    const weight = weightOf(index);
    const shown = weight === undefined ? '…' : amount(weight, view.about.measure === 'value');
    return html.button(
      {
        class: `other${isTarget ? ' on' : ''}${isLooker ? ' looker' : ''}`,
        'data-do': 'other',
        'data-index': index,
        'data-key': index,
      },
      html.bdi({ class: 'word' }, nameOf(index)),
      ` ${shown}`,
    );
  }

  function sentenceOf(index) {
    if (index === null || index === undefined) return 'Point at a patch for its number.';
    const weight = weightOf(index);
    if (weight === undefined) return `${nameOf(index)}: not here yet.`;
    const shown = amount(weight, view.about.measure === 'value');
    const looker = view.by === 'row' ? itemOf('queries', view.row) : itemOf('keys', view.column);
    if (view.by === 'row') return `${looker} puts ${shown} on ${nameOf(index)} (${whole(index)}).`;
    return `${nameOf(index)} (${whole(index)}) puts ${shown} on ${looker}.`;
  }

  function itemOf(side, index) {
    return index === null ? 'nothing' : itemName(view.names[side], index);
  }

  /** Compare with an item; `look` shows that item's own weights. */
  function pick(index, look = false) {
    const canLook = look && !view.part.crosses;
    if (canLook) choose(view.by === 'row' ? { row: index, column: null } : { row: null, column: index });
    else choose(view.by === 'row' ? { row: view.row, column: index } : { row: index, column: view.column });
  }

  function patchUnder(event) {
    const { left, top, width, height } = box.getBoundingClientRect();
    const { rows, columns } = view.part.grid;
    const within = (at, length) => Math.max(0, Math.min(length - 1, Math.floor(at)));
    return {
      row: within(((event.clientY - top) / height) * rows, rows),
      column: within(((event.clientX - left) / width) * columns, columns),
    };
  }

  box.addEventListener('pointermove', (event) => {
    cursor = patchUnder(event);
    plan();
  });
  box.addEventListener('pointerleave', () => {
    cursor = null;
    plan();
  });
  box.addEventListener('click', (event) => pick(indexOf(patchUnder(event)), event.shiftKey));
  box.addEventListener('dblclick', (event) => pick(indexOf(patchUnder(event)), true));
  box.addEventListener('keydown', (event) => {
    const move = PATCH_MOVES[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Enter' && cursor) pick(indexOf(cursor), event.shiftKey);
    else if (move) {
      const { target } = ends();
      const from = cursor ?? (target === null ? null : patchAt(target)) ?? { row: 0, column: 0 };
      const within = (at, length) => Math.max(0, Math.min(length - 1, at));
      cursor = {
        row: within(from.row + move[0], view.part.grid.rows),
        column: within(from.column + move[1], view.part.grid.columns),
      };
      plan();
      say(sentenceOf(indexOf(cursor)));
    } else return;
    event.preventDefault();
  });
  words.addEventListener('click', (event) => {
    const told = event.target.closest('[data-do]');
    if (told?.dataset.do === 'other') pick(Number(told.dataset.index), event.shiftKey);
    if (told?.dataset.do === 'bare') {
      bare = told.checked;
      plan();
    }
  });

  function stop() {
    asking?.abort();
    resizes.disconnect();
    cancelAnimationFrame(planned);
  }

  return { element, update, stop };
}
