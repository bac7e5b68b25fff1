// The answer to the chosen row or column: the lock, the sentence, and what carries it, heaviest first.

import { draw, html } from '../dom.js';
import { percent, whole } from '../numbers.js';
import { areWords, joinedTokens, shownToken } from './tokens.js';
import { counted, distanceOf, nobodyReads, printed, sentenceOf, sentenceView, unitOf, wordAt } from './wording.js';

const LISTED = 14; // at first
const MORE = 40;
const CONTEXT = 6; // tokens before and after
const CUTS = ['50', '90', '99'];

/** The answer's section. `host` is told what is chosen, locked, switched or stopped. */
export function makeAnswer(host) {
  const chip = html.p({ class: 'chip' }),
    sentence = html.h2({ class: 'say', id: `${host.id}-say` }),
    note = html.p({ class: 'cap' }),
    state = html.div({ class: 'standing' }),
    list = html.ol({ class: 'mass scrolls', 'aria-label': 'Heaviest first' }),
    head = html.div({ class: 'headline' }),
    columns = html.div(
      { class: 'lhead', 'aria-hidden': 'true' },
      ...['', 'weight', 'where', 'sum'].map((word) => html.span(null, word)),
    );
  const element = html.section(
    { class: 'answer', 'aria-labelledby': `${host.id}-say` },
    chip,
    state,
    sentence,
    note,
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
      most += MORE;
      drawList();
      list.querySelector(`[data-rank="${most - MORE + 1}"]`)?.focus();
    } else if (target.dataset.do) host.act(target.dataset.do);
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
    /** `passing`: what is not part of the answer: locked, waiting, problem. */
    update(view, passing) {
      if (shown?.line !== view.line) {
        most = LISTED;
        list.scrollTop = 0;
      }
      shown = view;
      draw(chip, chipView(view, passing));
      draw(state, stateView(passing));
      draw(sentence, view.line ? sentenceView(sentenceOf(view)) : ' ');
      draw(note, view.line ? noteView(view) : []);
      draw(head, view.line ? headView(view) : []);
      for (const box of head.querySelectorAll('input')) box.checked = passing.without;
      columns.hidden = !view.line;
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
      problem.gone ? html.p({ class: 'cap' }, 'Start ', html.code(null, 'clearhead view'), ' again, then') : null,
      html.p(null, html.button({ class: 'main', 'data-do': 'again' }, 'Try again')),
    );
  }
  return waiting ? html.p({ class: 'cap waiting' }, waiting) : null;
}

/** Where the most comes from, if that is little. */
function noteView(view) {
  if (!nobodyReads(view) || !view.line.top.length) return [];
  const [item, weight] = view.line.top[0],
    away = distanceOf(view, item, view.column);
  return [
    `The most is ${printed(view, weight)}, from `,
    html.q({ class: 'word' }, wordAt(view, 'queries', item)),
    `${away ? `, ${away}` : ''}. `,
    html.button({ class: 'link', 'data-pick': item }, 'Show it'),
  ];
}

function headView(view) {
  const can = view.by === 'row' && !view.part.crosses && unitOf(view, 'keys') !== 'patch';
  return [
    html.h2(null, 'Heaviest first'),
    can
      ? html.label(
          { class: 'tick' },
          html.input({ type: 'checkbox', checked: view.without }),
          ` without the first ${unitOf(view, 'keys')}`,
        )
      : null,
    view.without
      ? html.p(
          { class: 'cap' },
          `Only colours and sums change. The first ${unitOf(view, 'keys')} holds ${printed(view, view.line.first)}.`,
        )
      : null,
  ];
}

function listView(view, most) {
  const { line, by } = view,
    side = by === 'row' ? 'keys' : 'queries',
    unit = unitOf(view, side),
    other = by === 'row' ? view.column : view.row;
  const top = line.top.slice(0, most),
    words = areWords(view.names[side]);
  const lines = [];
  top.forEach(([item, weight, sum], at) => {
    lines.push(
      itemView(view, { item, weight, sum, rank: at + 1, side, unit, words, target: item === other, first: !at }),
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
            `Show ${Math.min(MORE, line.top.length - most)} more`,
          )
        : null,
    ),
  );
  return lines;
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
