// The picture that a vision model looked at, in place of a text: each patch is a token.

import { watchAppearance } from '../appearance.js';
import { draw, html } from '../dom.js';
import { paletteOf, STEPS } from './colours.js';
import { penOf } from './frame.js';
import { itemName } from './labels.js';

const WASH = 0.15; // how much of the picture the heaviest weight covers inside of a patch
const FRAME = 0.16; // of a patch's side: the frame of the heaviest
const FAINTEST = 0.3; // frame

/** A picture; `host` is told as a text's is, and `request` gets the picture itself. */
export function makePicture(host) {
  const image = html.img({ alt: '', draggable: 'false' }),
    over = html.canvas({ class: 'marks', 'aria-hidden': 'true' }),
    probe = html.span({ class: 'probe', 'aria-hidden': 'true' }),
    current = html.span({ class: 'unseen', role: 'option', id: `${host.id}-patch` });
  const box = html.div(
    { class: 'picture', id: host.id, tabindex: 0, role: 'listbox', 'aria-activedescendant': current.id },
    image,
    over,
    probe,
    current,
  );
  const words = html.div({ class: 'aside' });
  const element = html.div({ class: 'patches' }, box, words);
  let view = null;
  let told = null; // as a text is told: weights, shade, say, chosen, other
  let cursor = null; // the patch under the pointer
  let palette = null;
  let bare = false;
  let picture = { reading: null, state: 'none' }; // none, asked, here, or the sentence that says why not
  let asking = null;
  let planned = 0;

  const resizes = new ResizeObserver(() => plan());
  resizes.observe(box);
  const unwatch = watchAppearance(() => plan());

  async function ask(reading) {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    picture = { reading, state: view.reading.picture ? 'asked' : 'none' };
    image.removeAttribute('src');
    if (!view.reading.picture) return;
    try {
      const { kind, data } = await host.request('picture', { reading }, signal);
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
    if (!view?.part.grid) return;
    const { rows, columns } = view.part.grid;
    box.style.setProperty('--ratio', columns / rows);
    box.classList.toggle('bare', bare || picture.state !== 'here');
    box.setAttribute('aria-label', `Picture of ${rows} by ${columns} patches`);
    current.textContent = `${nameOf(told.chosen)}, ${saidOf(told.chosen)}`;
    current.setAttribute('aria-selected', 'true');
    draw(words, othersView(), aboutView());
    if (!box.clientWidth) return;
    palette = paletteOf(probe, palette);
    drawOver();
  }

  /** The weight of a token in the line that is shown, or null. */
  function weightOf(token) {
    return told.weights?.[token - told.shift] ?? null;
  }

  function stepAt(token) {
    const weight = weightOf(token);
    return weight === null ? 0 : told.shade(weight, token - told.shift);
  }

  const nameOf = (token) => (token === null ? 'nothing' : itemName(told.names, token));

  function saidOf(token) {
    const weight = token === null ? null : weightOf(token);
    return weight === null ? 'no weight' : told.say(weight);
  }

  function patchAt(token) {
    const { before, rows, columns } = view.part.grid;
    const at = token === null ? -1 : token - before;
    return at >= 0 && at < rows * columns ? { row: Math.floor(at / columns), column: at % columns } : null;
  }

  function tokenAt({ row, column }) {
    return view.part.grid.before + row * view.part.grid.columns + column;
  }

  /** A weight frames its patch, thicker and darker the heavier, so that what is heavy can still be seen. */
  function drawOver() {
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
    for (let row = 0; row < rows && !(bare && !alone); row += 1) {
      for (let column = 0; column < columns; column += 1) {
        const step = stepAt(tokenAt({ row, column })),
          [x, y, w, h] = place({ row, column });
        pen.fillStyle = palette.steps[alone ? step : STEPS];
        pen.globalAlpha = alone ? 1 : (WASH * step) / STEPS;
        pen.fillRect(x, y, w - (alone ? 1 : 0), h - (alone ? 1 : 0));
        if (alone || !step) continue;
        const thick = Math.max(1, (FRAME * Math.min(w, h) * step) / STEPS);
        pen.globalAlpha = FAINTEST + ((1 - FAINTEST) * step) / STEPS;
        pen.strokeStyle = palette.steps[STEPS];
        pen.lineWidth = thick;
        pen.strokeRect(x + 0.5 + thick / 2, y + 0.5 + thick / 2, w - 1 - thick, h - 1 - thick);
      }
    }
    pen.globalAlpha = 1;
    outline(pen, place, told.chosen, palette.ink, 2.5);
    outline(pen, place, told.other, palette.pair, 3);
    if (![told.chosen, told.other].includes(cursor)) outline(pen, place, cursor, palette.ink, 1);
  }

  function outline(pen, place, token, colour, thick) {
    const patch = patchAt(token);
    if (!patch) return;
    const [x, y, w, h] = place(patch);
    pen.lineWidth = thick + 2.5;
    pen.strokeStyle = palette.paper;
    pen.strokeRect(x, y, w, h);
    pen.lineWidth = thick;
    pen.strokeStyle = colour;
    pen.strokeRect(x, y, w, h);
  }

  /** The tokens that are no patches, with their weights. */
  function othersView() {
    const { before, rows, columns } = view.part.grid;
    const others = [...Array(before).keys()];
    for (let token = before + rows * columns; token < told.names.length; token += 1) others.push(token);
    if (!others.length) return null;
    return html.p(
      { class: 'others' },
      html.span({ class: 'cap' }, others.length > 1 ? 'Not of the picture:' : 'Not of the picture, but read with it:'),
      others.map((token) =>
        html.button(
          {
            class: `other${token === told.other ? ' target' : ''}${token === told.chosen ? ' looker' : ''}`,
            'data-token': token,
            'data-key': token,
          },
          html.bdi({ class: 'word' }, nameOf(token)),
          ` ${saidOf(token)}`,
        ),
      ),
    );
  }

  function aboutView() {
    if (picture.state === 'here') {
      return html.label(
        { class: 'tick' },
        html.input({ type: 'checkbox', checked: bare }),
        'the picture alone, in its colours',
      );
    }
    if (picture.state === 'asked') return null;
    const why = picture.state === 'none' ? 'The picture was not kept; each square is one patch.' : picture.state;
    return html.p({ class: 'cap' }, why);
  }

  function tokenUnder(event) {
    const { left, top, width, height } = box.getBoundingClientRect();
    const { rows, columns } = view.part.grid;
    const within = (at, length) => Math.max(0, Math.min(length - 1, Math.floor(at)));
    return tokenAt({
      row: within(((event.clientY - top) / height) * rows, rows),
      column: within(((event.clientX - left) / width) * columns, columns),
    });
  }

  function pointAt(token) {
    if (cursor === token) return;
    cursor = token;
    host.point(token ?? NaN);
    plan();
  }

  const pick = (token, compared) => (compared ? host.compare(token) : host.choose(token));
  box.addEventListener('pointermove', (event) => event.pointerType !== 'touch' && pointAt(tokenUnder(event)));
  box.addEventListener('pointerleave', () => pointAt(null));
  box.addEventListener('click', (event) => pick(tokenUnder(event), event.shiftKey));
  words.addEventListener('click', (event) => {
    const token = event.target.closest('[data-token]')?.dataset.token;
    if (token !== undefined) pick(Number(token), event.shiftKey);
  });
  words.addEventListener('change', ({ target }) => {
    bare = target.checked;
    plan();
  });

  return {
    element,
    box,
    update(next, tokens) {
      if (!view || view.about.reading !== next.about.reading || view.part !== next.part) cursor = null;
      [view, told] = [next, tokens];
      if (picture.reading !== view.about.reading) ask(view.about.reading);
      plan();
    },
    /** Where a key of the keyboard leads from a token, or null. */
    moved(key, token) {
      const { columns } = view.part.grid,
        last = told.names.length - 1;
      const far = patchAt(token) ? columns : 1;
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -far, ArrowDown: far }[key];
      if (by) return token + by < 0 || token + by > last ? token : token + by;
      return { Home: 0, End: last }[key] ?? null;
    },
    stop() {
      asking?.abort();
      resizes.disconnect();
      unwatch();
      cancelAnimationFrame(planned);
    },
  };
}
