// The left side: the items and their vectors, presets, and what can be altered.

import { html } from '../dom.js';
import { fixed, percent, typed } from '../numbers.js';
import { FORMULAS, PRESETS } from './course.js';
import { matricesOf } from './problem.js';
import { MOST_ITEMS } from './state.js';

const MOST_NOTES = 2;

export function itemsView(state, p, given) {
  const vectors = Boolean(state.vectors);
  return html.section(
    { 'aria-labelledby': 'yi' },
    html.div(
      { class: 'headline' },
      html.h2({ id: 'yi' }, 'Your items'),
      html.span(
        { class: 'seg', role: 'tablist', 'aria-label': 'What the items are' },
        tab('sentence', 'Sentence', !vectors),
        tab('vectors', 'Vectors', vectors),
      ),
    ),
    vectors ? null : sentenceField(state, given),
    given.problem ? problemNote(given.problem) : null,
    html.div(
      {
        class: 'frame',
        tabindex: p.x[0].length > 2 ? 0 : null,
        role: p.x[0].length > 2 ? 'region' : null,
        'aria-label': p.x[0].length > 2 ? 'Items and their vectors' : null,
      },
      itemTable(state, p, given),
    ),
    notes(state, p, given),
    vectors ? vectorTools(state, p) : null,
    html.p(
      { class: 'presets' },
      html.span(null, 'Try'),
      ' ',
      PRESETS.map((preset, at) => [
        html.button({ class: 'link', 'data-do': 'preset', 'data-with': at }, preset.name),
        ' ',
      ]),
    ),
  );
}

function tab(to, name, chosen) {
  return html.button({ role: 'tab', 'aria-selected': String(chosen), 'data-do': 'tab', 'data-with': to }, name);
}

function sentenceField(state, given) {
  return html.input({
    class: given.problem ? 'sentence wrong' : 'sentence',
    id: 'sentence',
    'aria-label': 'Your sentence',
    'aria-invalid': given.problem ? 'true' : null,
    value: state.text,
    maxlength: 2000,
    spellcheck: 'false',
    autocomplete: 'off',
  });
}

function problemNote(text) {
  return html.p({ class: 'note problem', role: 'alert' }, html.b(null, '✗ '), text, ' Shown: what was there before.');
}

function itemTable(state, p, given) {
  const editable = p.x[0].length <= 8 && !state.learned && state.axes !== 'all';
  return html.table(
    { class: 'items' },
    html.caption({ class: 'unseen' }, 'Items and their vectors'),
    p.names.map((name, j) =>
      html.tr(
        { class: `${hue(j)} ${j === p.row ? 'me' : ''} ${j === p.column ? 'it' : ''}` },
        html.th(
          { scope: 'row' },
          html.i({ class: 'sw' }),
          html.b({ class: 'num' }, String(j + 1)),
          html.span({ class: 'word', title: name }, shownName(name)),
        ),
        editable || state.vectors
          ? p.x[j].map((x, c) =>
              html.td(
                null,
                field(
                  `${p.labels[j]}, number ${c + 1}`,
                  state.vectors ? typed(x) : fixed(x, 2),
                  { row: j, column: c },
                  given.wrong,
                ),
              ),
            )
          : html.td({ class: 'many-numbers' }, `${fixed(p.x[j][0], 2)}, … ${p.x[j].length} numbers`),
        state.vectors && p.n > 1
          ? html.td(
              { class: 'less' },
              html.button(
                { class: 'link', 'data-do': 'remove', 'data-with': j, 'aria-label': `Remove ${p.labels[j]}` },
                '×',
              ),
            )
          : null,
      ),
    ),
  );
}

/** One of eight hues. */
export function hue(j) {
  return `x${(j % 8) + 1}`;
}

/** A name that stays visible if it is blank, and is cut if it is long. */
export function shownName(name) {
  const plain = name.replace(/\n/g, '⏎').replace(/\t/g, '⇥');
  const shown = plain.trim() ? plain : '␣';
  return shown.length > 24 ? `${shown.slice(0, 23)}…` : shown;
}

function field(label, value, { row, column, matrix = '' }, wrong) {
  const here = wrong && wrong.row === row && wrong.column === column && wrong.matrix === matrix;
  return html.input({
    class: here ? 'field wrong' : 'field',
    'aria-invalid': here ? 'true' : null,
    'aria-label': label,
    value: here ? wrong.text : value,
    inputmode: 'decimal',
    'data-row': row,
    'data-column': column,
    'data-matrix': matrix,
    autocomplete: 'off',
  });
}

function notes(state, p, given) {
  const said = [];
  if (!state.vectors && !state.learned) {
    const { kept } = given.sentence;
    said.push(
      state.axes === 'two'
        ? html.p(
            { class: 'note', title: 'of the vectors’ squared length' },
            `2 of 64 axes keep ${percent(kept)}. `,
            html.button({ class: 'link', 'data-do': 'axes', 'data-with': 'all' }, 'All 64'),
          )
        : html.p(
            { class: 'note' },
            'All 64 numbers of each word. ',
            html.button({ class: 'link', 'data-do': 'axes', 'data-with': 'two' }, 'Only 2'),
          ),
    );
    for (const note of given.sentence.notes.slice(0, MOST_NOTES)) said.push(html.p({ class: 'note' }, `${note}.`));
  }
  if (p.left)
    said.push(
      html.p(
        { class: 'note' },
        `${p.left} more ${state.learned ? 'piece' : 'item'}${p.left === 1 ? ' is' : 's are'} not shown: the page holds ${MOST_ITEMS}.`,
      ),
    );
  return said;
}

function vectorTools(state, p) {
  const width = state.vectors[0].length;
  return html.div(
    { class: 'note tools-row' },
    html.button({ class: 'link', 'data-do': 'add', disabled: p.n >= MOST_ITEMS }, 'Add an item'),
    html.button({ class: 'link', 'data-do': 'dims', 'data-with': 1, disabled: width >= 8 }, 'One number more'),
    html.button({ class: 'link', 'data-do': 'dims', 'data-with': -1, disabled: width <= 2 }, 'One less'),
    html.details(
      { class: 'paste' },
      html.summary({ class: 'link' }, 'Paste rows'),
      html.textarea({
        id: 'paste',
        'aria-label': 'Rows of numbers, as from a spreadsheet',
        rows: 4,
        placeholder: '1, 0\n0, 1',
      }),
      html.button({ class: 'quiet', id: 'use-rows' }, 'Use these rows'),
    ),
  );
}

export function whatIfView(state, p, given) {
  const flat = p.x[0].length === 2 && !state.learned;
  const made = state.learned ? 'A learned head has its own scale, positions and matrices.' : null;
  const root = p.d === 1 ? '√1' : `√${p.d}`;
  return html.section(
    { class: 'whatif', 'aria-labelledby': 'wi' },
    html.h2({ id: 'wi' }, 'What if'),
    made
      ? html.p(
          { class: 'note' },
          made,
          ' ',
          html.button({ class: 'link', 'data-do': 'learned', 'data-with': state.learned }, 'Back to the words'),
        )
      : html.ul(
          null,
          html.li(null, toggle('scaled', `scores are divided by ${root}`, state.scaled)),
          state.scaled
            ? html.li(
                { class: 'note' },
                p.d === 1
                  ? 'One product has nothing to grow with: √1 changes nothing.'
                  : `A sum of d products tends to grow like √d: ÷ ${root} keeps softmax from settling on one item where d is large.`,
              )
            : null,
          html.li(null, toggle('positions', 'positions are told', state.positions)),
          state.positions
            ? html.li(
                { class: 'note' },
                p.d === 1
                  ? 'One number alone has no partner to be turned with: nothing changes.'
                  : 'Rotary: queries and keys are turned by an angle that grows with the place, so that a score tells how far apart two items are.',
              )
            : null,
          html.li(null, toggle('window', 'a word sees only the last 3', state.window !== null)),
          pick(
            'matrices',
            'matrices',
            flat
              ? [
                  ['none', 'none'],
                  ['designed', 'designed'],
                  ['own', 'yours'],
                ]
              : [['none', 'none']],
            state.matrices,
            flat ? null : 'for 2 numbers',
          ),
          state.matrices !== 'none' && flat ? html.li(null, matrixFields(state, given)) : null,
          pick(
            'heads',
            'heads',
            [1, 2, 4].filter((h) => p.x[0].length % h === 0).map((h) => [h, String(h)]),
            state.heads,
            null,
          ),
        ),
    html.label(
      { class: 'pick formula-pick' },
      html.span(null, 'the formula'),
      html.select(
        { id: 'formula' },
        FORMULAS.map(([value, name]) => html.option({ value, selected: value === state.formula }, name)),
      ),
    ),
    html.p(
      { class: 'acts' },
      html.button(
        { class: 'link', 'data-do': 'shuffle', disabled: p.row < 2 || Boolean(state.learned) || state.window !== null },
        'Shuffle the past',
      ),
      html.button({ class: 'link', 'data-open': 'growth' }, 'Grow the length'),
      html.button({ class: 'link', 'data-open': 'exercise' }, 'Quiz'),
    ),
  );
}

function toggle(action, name, on) {
  return html.button(
    { role: 'switch', 'aria-checked': String(on), class: 'switch', 'data-do': action },
    html.span(null, name),
    html.i(null),
  );
}

function pick(action, name, options, chosen, reason) {
  return html.li(
    { class: 'pick' },
    html.span({ id: `pick-${action}` }, name, reason ? html.small(null, ` ${reason}`) : null),
    html.span(
      { class: 'seg', role: 'radiogroup', 'aria-labelledby': `pick-${action}` },
      options.map(([value, text]) =>
        html.button(
          { role: 'radio', 'aria-checked': String(value === chosen), 'data-do': action, 'data-with': value },
          text,
        ),
      ),
    ),
  );
}

function matrixFields(state, given) {
  const now = matricesOf(state),
    names = { wq: 'W^Q', wk: 'W^K', wv: 'W^V' };
  return [
    html.p(
      { class: 'note' },
      'q = x W',
      html.sup(null, 'Q'),
      ', a row times a matrix. ',
      state.matrices === 'designed'
        ? 'What points right asks for what points down, is found by that, and gives itself.'
        : '',
    ),
    html.div(
      { class: 'matrices' },
      Object.entries(names).map(([key, name]) =>
        html.table(
          null,
          html.caption(null, 'W', html.sup(null, name.slice(2))),
          now[key].map((line, row) =>
            html.tr(
              null,
              line.map((x, column) =>
                html.td(
                  null,
                  field(
                    `${name}, row ${row + 1}, column ${column + 1}`,
                    typed(x),
                    { row, column, matrix: key },
                    given.wrong,
                  ),
                ),
              ),
            ),
          ),
        ),
      ),
    ),
  ];
}
