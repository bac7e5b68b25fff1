// The head sheet: all heads of a part as thumbnails, the heads that lead in each measure, and a table of all numbers.

import { watchAppearance } from '../appearance.js';
import { draw, html } from '../dom.js';
import { percent, whole } from '../numbers.js';
import { makeAcross } from './across.js';
import { legendView } from './colours.js';
import { makeHeadGrid } from './headgrid.js';
import { HEAD_MEASURES, RANKINGS, headSentence, measuresOf, rankingsView, sortedHeads } from './ranks.js';
import { headTable } from './sheettable.js';
import { costOf, durationOf, makeSurvey } from './survey.js';
import { unitOf } from './wording.js';

const PROGRESS_AFTER = 100; // milliseconds

/** The sheet. `choose` is called with {layer, head}, and with {row, column} of a pair chosen along with them; `change`
 * with the state's { sheet }: "layer" or "rank". */
export function makeSheet({ request, alone, choose, change, say }) {
  const parts = Object.fromEntries(
    ['headline', 'state', 'told', 'ranks', 'twin'].map((name) => [name, html.div({ class: `sheet${name}` })]),
  );
  const twin = html.details({ class: 'twin' }, html.summary({ class: 'quiet' }, 'The same as numbers'), parts.twin);
  const survey = makeSurvey({ request, alone, changed: later });
  const across = makeAcross({ request, changed: later });
  const grid = makeHeadGrid({ choose, point });
  const element = html.section(
    { class: 'sheet', 'aria-label': 'All heads' },
    parts.headline,
    parts.state,
    html.div({ class: 'sheetgrid' }, html.div({ class: 'sheetleft' }, grid.element, parts.told), parts.ranks),
    twin,
  );
  let view = null,
    sorting = null, // what the reader sorts by
    page = 0,
    pointed = null, // the head under the pointer or the keyboard's
    drawing = 0,
    since = 0;

  function update(next) {
    view = next;
    const another = survey.turn(view.about, view.part.layers);
    if (another) {
      pointed = null;
      page = 0;
    }
    if (survey.known().state === 'ready' && view.line) start();
    across.turn(view);
    later();
  }

  function start() {
    since = performance.now();
    survey.start(view.about.layer);
  }

  /** What heads are sorted by: by place, and on the sheet by the first ranking, until the reader chooses. */
  function order() {
    if (sorting) return sorting;
    const known = measuresOf(view.part);
    return view.sheet === 'rank' ? RANKINGS.find(({ by }) => known.includes(by)) : { by: 'head', falling: false };
  }

  /** Draw once for all that changes before the next frame. */
  function later() {
    drawing ||= requestAnimationFrame(show);
  }

  function show() {
    drawing = 0;
    if (!view) return;
    const known = survey.known(),
      heads = [...known.heads.values()],
      { part } = view;
    draw(parts.headline, headline(known));
    draw(parts.state, stateView(known));
    grid.update({
      layers: view.part.layers,
      known: known.heads,
      chosen,
      sorted: view.sheet === 'rank' ? sortedHeads(heads, order()) : null,
      mark: ruleMark,
    });
    draw(parts.told, toldView(known));
    draw(parts.ranks, known.total > 1 && rankingsView(heads, part, chosen), across.lists(view, chosen));
    draw(parts.twin, twin.open && headTable(heads, order(), page, part, chosen));
  }

  function chosen({ layer, head }) {
    const { about } = view;
    return layer === about.layer && (about.join === 'one' ? about.heads[0] === head : about.heads.includes(head));
  }

  /** What stands before a line of sorted heads: its first head's number. */
  function ruleMark(head) {
    const { by } = order();
    if (by === 'head') return `${head.layer}.${head.head}`;
    return HEAD_MEASURES[by].print(head[by]);
  }

  function headline({ total }) {
    const mode = view.sheet;
    const radio = (name, title) =>
      html.button(
        { role: 'radio', 'aria-checked': String(mode === name), tabindex: mode === name ? 0 : -1, 'data-mode': name },
        title,
      );
    return html.div(
      { class: 'headline' },
      html.h2(null, total < 3 ? ['The only head', 'Both heads'][total - 1] : `All ${whole(total)} heads`),
      total > 1 && [
        html.span(
          { class: 'seg', role: 'radiogroup', 'aria-label': 'Order of heads' },
          radio('layer', 'by layer'),
          radio('rank', 'by what they do'),
        ),
        mode === 'rank' && measureMenu(),
      ],
      html.span({ class: 'cap' }, mode === 'rank' ? rankCaption() : layerCaption()),
    );
  }

  function measureMenu() {
    const known = measuresOf(view.part),
      { by: chosenBy, falling } = order(),
      offered = RANKINGS.filter(({ by }) => known.includes(by)),
      same = (one) => one.by === chosenBy && one.falling === falling;
    if (!offered.some(same)) offered.push({ by: chosenBy, falling, title: HEAD_MEASURES[chosenBy]?.title ?? 'Number' });
    return html.label(
      { class: 'sortby' },
      html.span({ class: 'unseen' }, 'Sorted by'),
      html.select(
        { 'data-order': true },
        offered.map((one) =>
          html.option(
            { value: `${one.by} ${one.falling}`, selected: same(one) },
            one.title ?? HEAD_MEASURES[one.by].title,
          ),
        ),
      ),
    );
  }

  function layerCaption() {
    const [{ queries, keys }] = view.part.layers,
      pooled = Math.max(queries, keys) > 28;
    return [
      'Each square is one head: queries down, keys across. ',
      pooled ? 'A pixel is the largest of its cells; none is skipped. ' : 'A square in it is one pair. ',
      grid.shared() && 'Heads in a bracket share one key head.',
    ];
  }

  function rankCaption() {
    const { by, falling } = order(),
      measure = HEAD_MEASURES[by];
    return measure
      ? `${measure.said} ${falling ? 'Largest' : 'Smallest'} first; each line begins with the number of its first head.`
      : 'By layer and number.';
  }

  function stateView(known) {
    const { state, heads, total, error } = known,
      sofar = `${whole(heads.size)} of ${whole(total)} heads`;
    const seconds = costOf(known.layers);
    const cut = alone && state === 'done' && heads.size < total;
    if (alone) return cut && html.p({ class: 'cap' }, aloneSentence(heads.size, total));
    if (state === 'waiting')
      return html.p(
        { class: 'ask' },
        html.button({ class: 'main', 'data-do': 'start' }, `Draw all ${whole(total)} heads`),
        html.span({ class: 'cap' }, `${durationOf(seconds)}; what is done stays if you stop it.`),
      );
    if (state === 'running')
      return (
        performance.now() - since > PROGRESS_AFTER &&
        html.p(
          { class: 'ask' },
          html.progress({ max: total, value: heads.size, 'aria-label': 'Heads drawn' }),
          html.span(null, `${sofar}${remaining(known)}`),
          html.button({ class: 'quiet', 'data-do': 'stop' }, 'Stop ', html.kbd(null, 'Esc')),
        )
      );
    if (state === 'stopped' || state === 'failed')
      return html.p(
        { class: state === 'failed' ? 'ask err' : 'ask', role: state === 'failed' ? 'alert' : null },
        html.span(null, `${error} Incomplete: ${sofar}.`.trim()),
        html.button({ class: 'main', 'data-do': 'start' }, state === 'failed' ? 'Try again' : 'Go on'),
      );
    return refusedView(known.refused);
  }

  function remaining({ heads, total }) {
    const passed = (performance.now() - since) / 1000,
      left = (passed / Math.max(1, heads.size)) * (total - heads.size);
    return passed > 3 && left > 1 ? `, ${durationOf(left)} left` : '';
  }

  function toldView({ heads }) {
    const {
        layer,
        heads: [head],
      } = view.about,
      at = pointed ?? { layer, head };
    const found = heads.get(`${at.layer}.${at.head}`);
    const key = view.part.layers.find(({ number }) => number === at.layer);
    const keyHead = key?.key_heads[key.heads.indexOf(at.head)];
    const shares = grid.shared() ? `, key head ${keyHead}` : '';
    const { floor, top } = grid.scale();
    return [
      html.p(
        { class: 'cap' },
        html.b(null, `Head ${at.layer}.${at.head}`),
        `${shares}: ${found ? sentenceAbout(found) : 'not drawn yet'}.`,
      ),
      heads.size > 0 && legendView(floor, top),
    ];
  }

  function sentenceAbout(head) {
    const unit = unitOf(view, 'keys');
    return headSentence(head, view.part, unit === 'patch' ? 'patches' : `${unit}s`);
  }

  /** The pointer or the keyboard is on a head, or on none; the keyboard's is spoken too. */
  function point(head, aloud) {
    pointed = head;
    later();
    if (!aloud) return;
    const found = survey.known().heads.get(`${head.layer}.${head.head}`);
    const what = found ? sentenceAbout(found) : 'not drawn yet';
    say(`Layer ${head.layer}, head ${head.head}: ${what}.`);
  }

  function setOrder(by, falling) {
    sorting = { by, falling };
    page = 0;
    later();
  }

  function showAll({ all, falling }) {
    setOrder(all, falling === 'true');
    change({ sheet: 'rank' });
    twin.open = true;
    twin.querySelector('summary').focus();
  }

  element.addEventListener('click', ({ target }) => {
    const at = target.closest('button')?.dataset;
    if (!at) return;
    if (at.mode) change({ sheet: at.mode });
    if (at.do === 'start') start();
    if (at.do === 'stop') stopSurvey();
    if (at.page) page = Number(at.page);
    if (at.all) showAll(at);
    if (at.sort) setOrder(at.sort, at.sort === order().by ? !order().falling : at.sort !== 'head');
    if (at.layer) {
      const pair = at.row ? { row: Number(at.row), column: Number(at.column) } : {};
      choose({ layer: Number(at.layer), head: Number(at.head), ...pair });
    }
    later();
  });
  element.addEventListener('change', ({ target }) => {
    if (!('order' in target.dataset)) return;
    const [by, falling] = target.value.split(' ');
    setOrder(by, falling === 'true');
  });
  twin.addEventListener('toggle', later);
  const resizes = new ResizeObserver(later);
  resizes.observe(element);
  const unwatch = watchAppearance(later);

  function stopSurvey() {
    const stopped = survey.stop();
    if (stopped) say(`Stopped: ${survey.known().heads.size} of ${survey.known().total} heads are drawn.`);
    return stopped;
  }

  /** For good, when the pane goes. */
  function close() {
    survey.stop();
    across.stop();
    resizes.disconnect();
    unwatch();
    cancelAnimationFrame(drawing);
  }

  return { element, update, stop: stopSurvey, close };
}

function aloneSentence(held, total) {
  return held
    ? `This page is a file that holds ${whole(held)} of ${whole(total)} heads.`
    : 'This page is a file, and holds no head sheet.';
}

/** Why some layers are not told: each reason once, with its layers. */
function refusedView(refused) {
  const layers = new Map();
  for (const [layer, said] of refused) layers.set(said, [...(layers.get(said) ?? []), layer]);
  return [...layers].map(([said, numbers]) =>
    html.p({ class: 'ask err' }, `Layer${numbers.length > 1 ? 's' : ''} ${numbers.join(', ')}: ${said}`),
  );
}
