// The text's part of a pane: one text, or two where one reads another; direction, search and generation.

import { scaleSentence } from './colours.js';
import { draw, html } from '../dom.js';
import { makeFind } from './find.js';
import { makeGeneration } from './generation.js';
import { makeMinimap } from './minimap.js';
import { whole } from '../numbers.js';
import { makePicture } from './patches.js';
import { makeText } from './text.js';
import { counted, inBand, printed, unitOf, whyNothing, wordAt } from './wording.js';

const SHORT = 320; // pixels of a text that leaves room below it
const WAYS = [
  ['row', 'what it reads'],
  ['column', 'who reads it'],
];

/** `host` is told what is picked and pointed at, as a side (queries or keys) and an item of it. Where keys are patches,
 * the picture stands in place of their text. */
export function makeTextPane(host) {
  let view = null;
  let over = null; // the side and the item under the pointer
  const keys = sideOf('keys', 'Text'),
    queries = sideOf('queries', 'Text that reads');
  const ways = html.span({ class: 'seg', role: 'radiogroup', 'aria-label': 'Direction' });
  const find = makeFind({
    names: () => view?.names.keys ?? [],
    here: () => keys.first,
    show: (token) => keys.text.show(token),
    mark: (found) => keys.text.mark(found),
    choose: (token) => choose('keys', token, false),
    back: () => {
      const { chosen, other } = view ? textOf('keys') : {};
      if (view) keys.text.show(chosen ?? other);
      keys.text.element.focus();
    },
    say: host.say,
  });
  const picture = makePicture({
    id: `${host.id}-picture`,
    request: host.request,
    choose: (token) => choose('keys', token, false),
    compare: (token) => choose('keys', token, true),
    point: (token) => point('keys', token),
  });
  const readsTitle = html.h2(null, 'Reads'),
    title = html.h2(null, 'Text'),
    reads = html.div({ class: 'headline' }, readsTitle),
    head = html.div({ class: 'headline' }, title, ways, find.element, find.result);
  const caption = html.p({ class: 'cap textcap' });
  const generation = makeGeneration(host.row);
  const element = html.section(
    { class: 'textpane', 'aria-label': 'Text' },
    head,
    keys.element,
    caption,
    generation.element,
  );

  ways.addEventListener('click', (event) => {
    const way = event.target.closest('[data-way]')?.dataset.way;
    if (way) host.by(way);
  });

  /** One text and its strip. */
  function sideOf(name, label) {
    const id = `${host.id}-${name}`;
    const side = { first: 0 };
    const minimap = makeMinimap({ controls: id, go: (token) => side.text.show(token) });
    side.text = makeText({
      id,
      label,
      choose: (token) => choose(name, token, false),
      compare: (token) => choose(name, token, true),
      point: (token) => point(name, token),
      tall: (height) => {
        side.element.classList.toggle('short', height <= SHORT);
        side.element.style.setProperty('--tall', `${height}px`);
      },
      scrolled: (from, to) => {
        side.first = from;
        side.element.classList.toggle('whole', !from && to >= (view?.layer[name] ?? Infinity));
        minimap.view(from, to);
      },
    });
    side.minimap = minimap;
    side.element = html.div({ class: 'pages' }, side.text.element, minimap.element);
    return side;
  }

  /** A token of a text as an item of a side: in one text, of the side that is asked about, or of the other. */
  function itemOf(name, token, other) {
    if (view.part.crosses) return [name, token];
    const side = (view.by === 'row') !== other ? 'queries' : 'keys';
    return [side, side === 'queries' ? token - view.layer.sees.offset : token];
  }

  function isThere(side, item) {
    return item >= 0 && item < view.layer[side];
  }

  function choose(name, token, compared) {
    const [side, item] = itemOf(name, token, compared);
    if (isThere(side, item)) host.pick(side, item);
    else host.say('No query of this token was kept: only its key can be looked at.');
  }

  function point(name, token) {
    over = Number.isNaN(token) ? null : [name, token];
    if (!view) return;
    captionView();
    const [side, item] = over ? itemOf(name, token, false) : [null, null];
    if (!over || isThere(side, item)) host.point(side, item);
  }

  function captionView() {
    draw(caption, over && view.line ? pointedView(view, ...over) : restView(view));
  }

  function textOf(name) {
    const { by, layer, part, line, row, column } = view,
      { offset } = layer.sees;
    const coloured = !part.crosses || name === (by === 'row' ? 'keys' : 'queries');
    const [query, key] = part.crosses ? [row, column] : [row + offset, column];
    const chosen = by === 'row' ? query : key,
      other = by === 'row' ? key : query;
    const own = name === (by === 'row' ? 'queries' : 'keys');
    return {
      names: view.names[name],
      weights: coloured && line ? line.values : null,
      shift: !part.crosses && by === 'column' ? offset : 0,
      chosen: !part.crosses || own ? chosen : null,
      other: !part.crosses || !own ? other : null,
      shade: view.scale ? view.scale.step : () => 0,
      say: (weight) => printed(view, weight),
      state: coloured ? (token) => unseen(view, token) : undefined,
    };
  }

  return {
    element,
    update(next) {
      view = next;
      const { part, by, line, layer } = view;
      element.classList.toggle('two', part.crosses);
      const [here, away] = part.grid ? [picture, keys] : [keys, picture];
      if (away.element.parentNode) away.element.replaceWith(here.element);
      find.element.hidden = Boolean(part.grid);
      if (part.crosses && !reads.parentNode) element.prepend(reads, queries.element);
      if (!part.crosses) for (const one of [reads, queries.element]) one.remove();
      draw(
        title,
        part.crosses
          ? ['Is read ', html.span({ class: 'tag' }, counted(layer.keys, 'key'))]
          : part.grid
            ? 'Picture'
            : 'Text',
      );
      draw(
        readsTitle,
        'Reads ',
        html.span({ class: 'tag' }, layer.queries === 1 ? '1 query' : `${whole(layer.queries)} queries`),
      );
      const place = part.crosses ? reads : head;
      if (ways.parentNode !== place) place.insertBefore(ways, part.crosses ? null : find.element);
      if (part.grid) picture.update(view, textOf('keys'));
      for (const [name, side, size] of [
        ['keys', keys, layer.keys],
        ['queries', queries, layer.queries],
      ]) {
        if (!side.element.parentNode) continue;
        const told = textOf(name);
        side.text.update(told);
        side.minimap.update(told.weights ? line.bins : null, line?.length ?? 1, told.shift, size, (weight) =>
          view.scale ? view.scale.step(weight, 1) : 0,
        );
      }
      generation.update(view);
      captionView();
    },
    /** Show which way is chosen, before the answer is there. */
    turned(by) {
      draw(
        ways,
        WAYS.map(([way, said]) => {
          const on = by === way;
          return html.button(
            { role: 'radio', 'data-way': way, 'aria-checked': String(on), tabindex: on ? 0 : -1 },
            said,
          );
        }),
      );
    },
    /** Scroll so that an item of a side is seen: `nearest`, just so far. */
    reveal(of, side, item, nearest = false) {
      const { crosses, grid } = of.part,
        { offset } = of.layer.sees;
      if (crosses && side === 'queries') queries.text.show(item, nearest);
      else if (!grid && crosses) keys.text.show(item, nearest);
      else if (!grid) {
        const [token, other] = side === 'queries' ? [item + offset, of.column] : [item, of.row + offset];
        keys.text.show(token, nearest, other);
      }
    },
    /** Where a key of the keyboard leads, as a side and an item. */
    moved(key, of, other) {
      const side = (of.by === 'row') !== other ? 'queries' : 'keys',
        shift = of.part.crosses || side === 'keys' ? 0 : of.layer.sees.offset;
      const place = of.part.crosses && side === 'queries' ? queries.text : of.part.grid ? picture : keys.text;
      const token = place.moved(key, (side === 'queries' ? of.row : of.column) + shift);
      if (token === null) return null;
      const most = (side === 'queries' ? of.layer.queries : of.layer.keys) - 1;
      return [side, Math.max(0, Math.min(most, token - shift))];
    },
    find: () => find.focus(),
    focus: () => {
      const asks = view?.part.crosses && view.by === 'row';
      (asks ? queries.text.element : view?.part.grid ? picture.box : keys.text.element).focus();
    },
    stop: () => picture.stop(),
  };
}

/** Why a token of the shaded text has no weight, or nothing. */
function unseen(view, token) {
  const { by, row, column, layer, part } = view;
  const item = by === 'column' && !part.crosses ? token - layer.sees.offset : token;
  if (by === 'row') return inBand(view, row, item) ? '' : whyNothing(view, row, item);
  if (item < 0) return 'not among the queries';
  return inBand(view, item, column) ? '' : `does not see ${wordAt(view, 'keys', column)}`;
}

/** What the caption says of the token under the pointer. */
function pointedView(view, name, token) {
  const { by, line, part, layer, row, column } = view;
  const side = part.crosses ? name : by === 'row' ? 'keys' : 'queries';
  const item = !part.crosses && side === 'queries' ? token - layer.sees.offset : token;
  const word = html.b({ class: 'word' }, wordAt(view, part.crosses ? name : 'keys', token));
  if (part.crosses && (side === 'keys') !== (by === 'row')) return [word, `, ${whole(token)}.`];
  const why = unseen(view, token);
  if (why || line.values[item] === undefined) return [word, `, ${whole(token)}: ${why || 'no weight'}.`];
  const weight = line.values[item];
  if (!weight)
    return [
      word,
      `, ${whole(token)}: 0 %, ${by === 'row' ? whyNothing(view, row, item) : whyNothing(view, item, column)}.`,
    ];
  const chosen = html.b({ class: 'word' }, by === 'row' ? wordAt(view, 'queries', row) : wordAt(view, 'keys', column));
  if (by === 'row')
    return [
      word,
      `, ${whole(token)}: `,
      html.b(null, printed(view, weight)),
      ' of what ',
      chosen,
      ' reads. Click to choose it, Shift-click to pair them.',
    ];
  return [
    word,
    `, ${whole(token)}, puts `,
    html.b(null, printed(view, weight)),
    ' on ',
    chosen,
    '. Click to choose it, Shift-click to pair them.',
  ];
}

function restView(view) {
  const { scale } = view;
  if (!scale) return '';
  const shades = scaleSentence(scale.floor, scale.top, scale.plain);
  if (!view.part.grid) return `${shades} ${hatchedSaid(view)}Point at a ${unitOf(view, 'keys')} for its number.`;
  if (view.part.crosses && view.by === 'row') return `${shades} Click a patch to compare it.`;
  const asks = view.by === 'row' ? 'what it reads' : 'who reads it';
  if (view.part.crosses) return `${shades} Click a patch to see who reads it.`;
  return `${shades} Click a patch to see ${asks}; Shift-click chooses the other of the pair.`;
}

/** What hatching stands for, if something is hatched. */
function hatchedSaid({ by, part, layer, at }) {
  const { low, high, offset } = layer.sees,
    here = at + offset;
  if (part.crosses || (high === null && low === null)) return '';
  if (by === 'column') return 'Hatched does not see it. ';
  const later = high !== null && here + high + 1 < layer.keys,
    before = low !== null && here + low > 0;
  if (!later && !before) return '';
  const where = [later && (high ? 'beyond its window' : 'later'), before && 'before its window'];
  return `Hatched is ${where.filter(Boolean).join(' or ')}: not seen. `;
}
