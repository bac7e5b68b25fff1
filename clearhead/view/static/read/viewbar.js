// What a pane shows: the reading, its part, the layer, the heads and how they become one picture.

import { draw, html, showWithin } from '../dom.js';
import { whole } from '../numbers.js';
import { counted, unitOf } from './wording.js';

const JOINED = [
  ['one', 'one head'],
  ['mean', 'mean'],
  ['max', 'max'],
];

/** The bar above a pane; `host` is told of each change and of each action. */
export function makeViewbar(host) {
  const element = html.div({ class: 'view', role: 'region', 'aria-label': host.label });
  let shown = null;

  function pick(head, event) {
    const { heads, join } = shown.state;
    const every = shown.layer.heads;
    if (event.shiftKey) {
      const [from, to] = [every.indexOf(heads.at(-1)), every.indexOf(head)].sort((a, b) => a - b);
      const others = every.slice(from, to + 1).filter((one) => !heads.includes(one));
      host.change({ heads: [...heads, ...others], join: join === 'one' ? 'mean' : join });
    } else if (event.ctrlKey || event.metaKey || join !== 'one') {
      const next = heads.includes(head) ? heads.filter((one) => one !== head) : [...heads, head];
      if (next.length) host.change({ heads: next, join: join === 'one' ? 'mean' : join });
    } else host.change({ heads: [head] });
  }

  element.addEventListener('click', (event) => {
    const target = event.target.closest('[data-head], [data-join], [data-by], [data-do]');
    if (!target || target.disabled) return;
    const { head, join, by } = target.dataset;
    if (head) pick(Number(head), event);
    if (join) host.join(join);
    if (by) host.step(Number(by));
    if (target.dataset.do) host.act(target.dataset.do, target);
  });
  element.addEventListener('change', ({ target }) => {
    if (target.name === 'reading') host.change({ reading: Number(target.value), part: null, row: null, column: null });
    if (target.name === 'part') host.change({ part: target.value, row: null, column: null });
    if (target.name === 'layer') host.change({ layer: Number(target.value) });
  });

  return {
    element,
    /** `passing`: whether there are two panes, and which button has just done its work. */
    update(view, passing) {
      shown = view;
      draw(element, barOf(view, passing));
      for (const box of element.querySelectorAll('select')) box.value = box.dataset.now;
      showWithin(element.querySelector('.headpick'), '[tabindex="0"]');
    },
  };
}

function barOf(view, passing) {
  const { part, state } = view;
  return [
    whoView(view, passing.readings),
    part.layers.length > 1 ? layerView(view) : null,
    headsView(view),
    view.layer.heads.length > 1
      ? html.span(
          { class: 'seg', role: 'radiogroup', 'aria-label': 'Heads together' },
          JOINED.map(([join, name]) =>
            html.button(
              {
                role: 'radio',
                'data-join': join,
                'aria-checked': String(state.join === join),
                tabindex: state.join === join ? 0 : -1,
              },
              name,
            ),
          ),
        )
      : null,
    html.span({ class: 'room' }),
    html.p(
      { class: 'chips', 'aria-label': 'In short' },
      chipsOf(view).map((chip) => html.span(null, chip)),
    ),
    html.div(
      { class: 'does' },
      html.button({ class: 'quiet', 'data-do': 'python' }, passing.copied ? 'Copied' : 'Copy as Python'),
      passing.two ? html.button({ class: 'quiet', 'data-do': 'close' }, 'Close this view') : null,
    ),
  ];
}

/** The model, its text and its part: menus where there is something to choose. */
function whoView({ reading, part, layer, state }, readings) {
  const one = readings.every(({ name }) => name === reading.name);
  const titles = readings.map(({ name, title }, at) => [
    at,
    one ? title || `text ${at + 1}` : title ? `${name}: ${title}` : name,
  ]);
  return html.div(
    { class: 'who' },
    one ? html.strong(null, reading.name) : null,
    readings.length > 1 ? choiceView('reading', 'What is read', state.reading, titles, one) : null,
    html.span(
      { class: 'about' },
      reading.parts.length > 1
        ? choiceView(
            'part',
            'Part',
            part.name,
            reading.parts.map(({ name }) => [name, name]),
          )
        : null,
      html.span({ title: reading.title }, lengthOf({ part, layer })),
      reading.again ? html.button({ class: 'link', 'data-do': 'read' }, 'Read another text') : null,
    ),
  );
}

/** How many items there are; what is not a patch of a picture is counted by itself. */
function lengthOf({ part, layer }) {
  const { queries, keys } = layer;
  if (part.crosses) return `${whole(queries)} queries, ${whole(keys)} keys`;
  const unit = unitOf({ part, layer });
  if (unit === 'patch') {
    const { before } = part.grid;
    return `${counted(keys - before, unit)}${before ? ` after ${counted(before, part.unit)}` : ''}`;
  }
  return queries === keys ? counted(keys, unit) : `${whole(queries)} of ${counted(keys, unit)}`;
}

function choiceView(name, label, now, options, words = false) {
  return html.select(
    { name, class: words ? 'pick word' : 'pick', 'aria-label': label, 'data-key': name, 'data-now': now },
    options.map(([value, text]) => html.option({ value, selected: value === now }, text)),
  );
}

function layerView({ part, layer }) {
  const at = part.layers.indexOf(layer);
  return html.div(
    { class: 'stepper', role: 'group', 'aria-label': 'Layer' },
    html.button(
      { class: 'quiet icon', 'data-by': -1, 'aria-label': 'Layer before', title: 'Layer before [', disabled: !at },
      '‹',
    ),
    html.label(
      null,
      'layer ',
      choiceView(
        'layer',
        'Layer',
        layer.number,
        part.layers.map(({ number }) => [number, String(number)]),
      ),
    ),
    html.button(
      {
        class: 'quiet icon',
        'data-by': 1,
        'aria-label': 'Next layer',
        title: 'Next layer ]',
        disabled: at === part.layers.length - 1,
      },
      '›',
    ),
  );
}

/** The heads, with a bracket under those that share a key head. */
function headsView({ layer, state }) {
  const one = state.join === 'one',
    shared = new Set(layer.key_heads).size < layer.heads.length;
  const groups = new Map();
  layer.heads.forEach((head, at) => {
    const key = shared ? layer.key_heads[at] : 0;
    groups.set(key, [...(groups.get(key) ?? []), head]);
  });
  const button = (head) => {
    const on = state.heads.includes(head);
    const kind = one ? { role: 'radio', 'aria-checked': String(on) } : { 'aria-pressed': String(on) };
    return html.button(
      {
        ...kind,
        'data-head': head,
        'data-key': head,
        'aria-label': `head ${head}`,
        tabindex: head === state.heads[0] ? 0 : -1,
      },
      String(head),
    );
  };
  return html.div(
    {
      class: 'headpick scrolls',
      role: one ? 'radiogroup' : 'group',
      'aria-label': one ? 'Query head' : 'Query heads, several',
      title: 'Ctrl or Shift adds heads',
    },
    [...groups].map(([key, heads]) =>
      html.span(
        { class: 'kv', role: shared ? 'group' : 'none', 'aria-label': shared ? `share key head ${key}` : null },
        html.span({ class: 'hs', role: 'none' }, heads.map(button)),
        shared ? html.span({ class: 'br', 'aria-hidden': 'true' }, heads.length > 1 ? `key ${key}` : `k${key}`) : null,
      ),
    ),
  );
}

function chipsOf({ by, at, layer, state, about }) {
  const { heads, join } = state;
  const which =
    join === 'one' || heads.length === 1
      ? `head ${layer.number}.${heads[0]}`
      : `${join} of ${heads.length === layer.heads.length ? `all ${heads.length}` : heads.length} heads`;
  return [
    `${by} ${whole(at)}`,
    which,
    about.measure === 'value' && 'times the value’s length',
    state.without && 'without the first',
  ].filter(Boolean);
}
