// The answer to the chosen row or column: the lock, the sentence, and what carries it, heaviest first.

import { draw, html } from '../dom.js';
import { percent, whole } from '../numbers.js';
import { areWords, joinedTokens, shownToken } from './tokens.js';
import {
  counted,
  distanceOf,
  nobodyReads,
  printed,
  sentenceOf,
  sentenceView,
  unitOf,
  wholeOf,
  wholeSaid,
  wordAt,
} from './wording.js';

const LISTED = 14; // at first
const LISTED_MORE = 40;
const CONTEXT = 6; // tokens before and after
const CUTS = ['50', '90', '99'];

/** The answer's section. `host` is told what is chosen, locked, switched or stopped. */
export function makeAnswer(host) {
  const chip = html.p({ class: 'chip' }),
    sentence = html.h2({ class: 'say', id: `${host.id}-say` }),
    heads = html.p({ class: 'cap inheads' }),
    state = html.div({ class: 'standing' }),
    list = html.ol({ class: 'mass scrolls', 'aria-label': 'Heaviest first' }),
    head = html.div({ class: 'headline' }),
    columns = html.div({ class: 'lhead', 'aria-hidden': 'true' });
  const element = html.section(
    { class: 'answer', 'aria-labelledby': `${host.id}-say` },
    chip,
    state,
    sentence,
    heads,
    head,
    columns,
    list,
  );
  let shown = null;
  let most = LISTED;

  function drawList() {
    draw(list, shown.line ? listView(shown, most) : []);
  }

  element.addEventListener('click', (event) => {
    const target = event.target.closest('[data-pick], [data-do]');
    if (!target) return;
    if (target.dataset.pick) host.pick(Number(target.dataset.pick));
    if (target.dataset.do === 'more') {
      most += LISTED_MORE;
      drawList();
      list.querySelector(`[data-rank="${most - LISTED_MORE + 1}"]`)?.focus();
    } else if (target.dataset.do) host.act(target.dataset.do, target.dataset);
  });
  element.addEventListener('change', (event) => {
    if (event.target.type === 'checkbox') host.act('without', event.target.checked);
  });
  list.addEventListener('keydown', (event) => {
    const lines = [...list.querySelectorAll('button')],
      at = lines.indexOf(event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: lines.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    lines[Math.max(0, Math.min(lines.length - 1, to))].focus();
  });
  list.addEventListener('focusin', (event) => {
    for (const line of list.querySelectorAll('button')) line.tabIndex = line === event.target ? 0 : -1;
  });

  return {
    element,
    /** `passing`: what is not part of the answer: locked, waiting, problem, and the heaviest item in any head. */
    update(view, passing) {
      if (shown?.line !== view.line) {
        most = LISTED;
        list.scrollTop = 0;
      }
      shown = view;
      draw(chip, chipView(view, passing));
      draw(state, stateView(passing));
      draw(sentence, view.line ? sentenceView(sentenceOf(view)) : ' ');
      draw(heads, view.line ? anyHeadView(view, passing.heaviest) : []);
      draw(head, view.line ? headView(view) : []);
      for (const box of head.querySelectorAll('input')) box.checked = passing.without;
      columns.hidden = !view.line;
      draw(columns, columnsView(view));
      drawList();
    },
  };
}

function chipView(view, { locked, waiting }) {
  const side = view.by === 'row' ? 'queries' : 'keys';
  if (!locked) {
    return [
      html.span(null, 'follows the pointer; Enter locks'),
      html.button({ class: 'quiet', 'data-do': 'lock' }, 'Lock ', html.kbd(null, '⏎')),
    ];
  }
  return [
    html.span(null, 'locked on ', html.b({ class: 'word' }, wordAt(view, side, view.at)), `, ${whole(view.at)}`),
    waiting
      ? html.button({ class: 'quiet', 'data-do': 'stop' }, 'Stop ', html.kbd(null, 'Esc'))
      : html.button({ class: 'quiet', 'data-do': 'unlock' }, 'Unlock ', html.kbd(null, 'Esc')),
  ];
}

/** What is being waited for, or what went wrong; the last answer stays, and is named as such. */
function stateView({ waiting, problem }) {
  if (problem) {
    return html.div(
      { class: 'trouble', role: 'alert' },
      html.p({ class: 'tag' }, problem.kind),
      html.p({ class: 'say2' }, problem.said),
      problem.then ? html.p({ class: 'cap' }, problem.then) : null,
      problem.gone
        ? html.p(
            { class: 'cap' },
            'If it has ended: start ',
            html.code(null, 'clearhead view'),
            ' again and open the address that it prints.',
          )
        : null,
      problem.again ? html.p(null, html.button({ class: 'main', 'data-do': 'again' }, 'Try again')) : null,
    );
  }
  return waiting ? html.p({ class: 'cap waiting' }, waiting) : null;
}

/** What the row or column has most of in any head; the head can be chosen. A line that is always there does not make
 * the others jump when it comes. */
function anyHeadView(view, heaviest) {
  const { by, part, about } = view;
  if (part.layers.length === 1 && part.layers[0].heads.length === 1) return [];
  const most = about.measure === 'value' ? 'Most weight in any head' : 'Most in any head';
  if (!heaviest) return `${most}: …`;
  const { found, said } = heaviest;
  if (said) return `${most}: not known.`; // the lists over all heads say why
  const rests = by === 'row' && !part.crosses && unitOf(view) !== 'patch',
    off = rests ? found.find(([, , , column]) => column > 0) : null,
    first = off ?? found[0];
  if (!first) return `${most}: nothing.`;
  const [layer, head, row, column, weight] = first;
  const item = by === 'row' ? column : row,
    mine = about.join === 'one' && about.layer === layer && about.heads[0] === head;
  const told = [
    html.q({ class: 'word' }, wordAt(view, by === 'row' ? 'keys' : 'queries', item)),
    ` ${percent(weight)}`,
  ];
  return [
    `${most}${off ? ', off the first' : ''}: `,
    mine
      ? ['this one, ', ...told]
      : html.button(
          { class: 'link', 'data-do': 'head', 'data-layer': layer, 'data-head': head, 'data-item': item },
          `${layer}.${head}, `,
          told,
        ),
  ];
}

/** What stands above the columns of the list; the last says what a sum is a share of. */
function columnsView(view) {
  const of = view.line ? wholeOf(view) : '';
  return ['', 'weight', 'where', of ? `of ${of}` : 'sum'].map((word) => html.span(null, word));
}

function headView(view) {
  const can = view.by === 'row' && !view.part.crosses && unitOf(view) !== 'patch';
  return [
    html.h2(null, 'Heaviest first'),
    can
      ? html.label(
          { class: 'tick' },
          html.input({ type: 'checkbox', checked: view.without }),
          ` without the first ${unitOf(view)}`,
        )
      : null,
    view.without
      ? html.p(
          { class: 'cap' },
          `Left out of the list, its sums and the text’s colours; the map has it. The first ${unitOf(view)} holds `,
          `${printed(view, view.line.first)}.`,
        )
      : null,
    wholeOf(view) ? html.p({ class: 'cap' }, wholeSaid(view)) : null,
  ];
}

function listView(view, most) {
  const { line, by } = view,
    side = by === 'row' ? 'keys' : 'queries',
    unit = unitOf(view),
    other = by === 'row' ? view.column : view.row;
  const top = line.top.slice(0, most),
    words = areWords(view.names[side]);
  const lines = [];
  top.forEach(([item, weight], at) => {
    lines.push(
      itemView(view, {
        item,
        weight,
        sum: runningSum(line, at),
        rank: at + 1,
        side,
        unit,
        words,
        target: item === other,
        first: !at,
      }),
    );
    for (const cut of CUTS) {
      if (line.carriers[cut] !== at + 1) continue;
      const last = CUTS.findLast((one) => line.carriers[one] === at + 1);
      if (cut === last) lines.push(cutView(at + 1, cut, unit));
    }
  });
  const listed = line.top.length > most;
  const count = line.rest.count + line.top.length - top.length,
    share = line.top
      .slice(most)
      .reduce((sum, [, weight]) => sum + weight / (totalOf(line, view) || 1), line.rest.share);
  lines.push(
    html.li(
      { class: 'rest' },
      restSaid(count, share, unit, top.length, view),
      listed ? ' ' : null,
      listed
        ? html.button(
            { class: 'link', 'data-do': 'more', tabindex: -1 },
            `Show ${Math.min(LISTED_MORE, line.top.length - most)} more`,
          )
        : null,
    ),
  );
  return lines;
}

/** What the items so far carry together: not all, as long as any is left. */
function runningSum({ top, rest }, at) {
  const left = at + 1 < top.length || rest.count > 0;
  return left ? Math.min(top[at][2], 1 - 1e-9) : top[at][2];
}

/** What the listed shares are shares of. */
function totalOf(line, view) {
  return view.without ? line.sum - line.first : line.sum;
}

function restSaid(count, share, unit, listed, view) {
  if (nobodyReads(view) && !listed) return `No ${unit} puts anything on it.`;
  if (!count) return `no other ${unit} carries anything`;
  return `the other ${counted(count, unit)} ${count === 1 ? 'carries' : 'carry'} ${percent(share)}`;
}

function cutView(count, cut, unit) {
  return html.li(
    { class: 'cut' },
    html.span(null, `${counted(count, unit)} ${count === 1 ? 'carries' : 'carry'} ${cut} %`),
  );
}

/** One line: the token stands at one place in all of them, between its neighbours. */
function itemView(view, { item, weight, sum, rank, side, unit, words, target, first }) {
  const names = view.names[side];
  const [row, column] = side === 'keys' ? [view.row, item] : [item, view.column];
  const away = distanceOf(view, row, column),
    far = `${away ? `${away}, ` : ''}${unit === 'token' ? 'number' : unit} ${whole(item)}`;
  const around = unit === 'patch' ? 0 : CONTEXT;
  const { lead, text } = shownToken(names[item]),
    space = words ? ' ' : lead;
  const weightSaid = printed(view, weight);
  return html.li(
    { class: target ? 'target' : null, 'data-key': rank },
    html.button(
      {
        'data-pick': item,
        'data-rank': rank,
        tabindex: first ? 0 : -1,
      },
      html.span({ class: 'rk' }, whole(rank)),
      html.span({ class: 'wt' }, weightSaid),
      html.span(
        { class: around ? 'in word' : 'in word alone' },
        html.span(
          { class: 'ctx before' },
          html.span(null, `${joinedTokens(names.slice(Math.max(0, item - around), item), words)}\u200b`),
        ),
        html.b(null, space + text),
        html.span(
          { class: 'ctx' },
          `${words ? ' ' : ''}${joinedTokens(names.slice(item + 1, item + 1 + around), words)}`,
        ),
      ),
      html.span({ class: 'far' }, target && html.span({ class: 'unseen' }, 'the chosen pair, '), far),
      html.span({ class: 'cum' }, percent(sum)),
    ),
  );
}
