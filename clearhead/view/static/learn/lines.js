// The right side: the five lines of arithmetic for the chosen pair, with live numbers.

import { html, math } from '../dom.js';
import { mi, mn, mo, msub, piece } from './formulas.js';
import { shownName } from './items.js';
import { factor, number, percent, typed } from '../numbers.js';

const MOST_PRODUCTS = 4,
  MOST_NUMBERS = 4;

export function linesView(state, p, veiled) {
  const it = shownName(p.names[p.column]),
    me = shownName(p.names[p.row]);
  const same = p.row === p.column;
  const seen = p.shown.seen[p.row][p.column];
  if (p.nothing) {
    return html.section(
      { 'aria-labelledby': 'q' },
      html.h2(
        { id: 'q', class: 'ask' },
        'How much of ',
        html.em({ class: 'it' }, it),
        ' is in the new ',
        html.em(null, me),
        '?',
      ),
      html.p({ class: 'note' }, 'No one can say: the scores add up to 0, and nothing can be divided by that.'),
    );
  }
  const weight = p.shown.rows[p.row].weights[p.column];
  return html.section(
    { 'aria-labelledby': 'q' },
    html.h2(
      { id: 'q', class: 'ask' },
      'How much of ',
      html.em({ class: 'it' }, same ? `${it} itself` : it),
      ' is in the new ',
      html.em(null, me),
      '? ',
      veiled
        ? html.span({ class: 'answer veil' }, '?')
        : html.output({ class: 'answer' }, seen ? exact(p, weight) : '0 %'),
    ),
    seen
      ? html.ol({ class: 'lines' }, rows(state, p, veiled))
      : html.p(
          { class: 'note' },
          p.column > p.row
            ? `Nothing: ${it} comes later, and is not seen.`
            : `Nothing: ${it} lies too far back, and is not seen.`,
        ),
  );
}

/** A weight with as many digits as it needs. */
function exact(p, weight) {
  return p.plainWeights ? number(weight) : percent(weight).replace(' ', '\u202f');
}

function rows(state, p, veiled) {
  const hidden = html.span({ class: 'veil' }, '?'),
    name = shownName(p.names[p.row]);
  const line = (what, sum, hide) =>
    html.li(null, html.span({ class: 'what' }, what), html.span({ class: 'sum' }, hide ? hidden.cloneNode(true) : sum));
  return [
    line('score', score(p), false),
    line('exponential', exponential(p), veiled),
    line('row total', total(p), veiled),
    line(p.plainWeights ? 'in its place' : 'weight', weightLine(state, p), veiled),
    line(['new ', html.span({ class: 'word' }, name)], output(state, p), veiled),
  ];
}

function score(p) {
  const [a, b] = p.letters,
    q = p.q[p.row],
    k = p.found[p.column],
    s = p.shown.rows[p.row].scores[p.column];
  const products = q.map((x, c) => [factor(x), factor(k[c])]).slice(0, q.length > MOST_PRODUCTS ? 2 : MOST_PRODUCTS);
  const left = q.length - products.length,
    scale = p.shown.scale;
  return [
    piece(msub(a, p.row + 1), mo('·'), msub(b, p.column + 1)),
    products.map(([x, y], c) => [html.wbr(), piece(c ? '+' : '=', mn(x), mo('·'), mn(y))]),
    left ? [html.wbr(), piece('+', mi('…')), ` (${left} more products)`] : null,
    scale === 1 ? null : [html.wbr(), piece('=', mn(number(s / scale)))],
    scale === 1 ? null : [html.wbr(), ' ', divisor(p), ' '],
    html.wbr(),
    piece('=', mn(number(s), true)),
  ];
}

function divisor(p) {
  const { scale } = p.shown,
    d = p.d;
  if (Math.abs(scale * Math.sqrt(d) - 1) < 1e-12) return piece('÷', math.msqrt(null, mn(String(d))));
  return piece('÷', mn(typed(1 / scale)));
}

function exponential(p) {
  const row = p.shown.rows[p.row],
    s = number(row.scores[p.column]),
    e = number(row.exponentials[p.column]);
  const power = row.shift ? math.mrow(null, mn(s), mo('−'), mn(factor(row.shift))) : mn(s);
  return [
    piece(math.msup(null, mi('e'), power), '=', mn(e, true)),
    row.shift
      ? html.span(
          { class: 'note' },
          ' The largest score is taken off first: no weight changes, and no exponential grows too large.',
        )
      : null,
  ];
}

function total(p) {
  const row = p.shown.rows[p.row],
    all = p.counted;
  return [
    all.map((j, at) => [
      at ? html.wbr() : null,
      piece(...(at ? ['+'] : []), mn(number(row.exponentials[j]), j === p.column)),
    ]),
    html.wbr(),
    piece('=', mn(number(row.total))),
  ];
}

function weightLine(state, p) {
  const row = p.shown.rows[p.row],
    e = number(row.exponentials[p.column]),
    weight = exact(p, row.weights[p.column]);
  if (state.formula === 'no-softmax') return piece(mi('score'), '=', mn(weight, true));
  if (state.formula === 'scores-as-weights') {
    const all = row.scores.filter((_, j) => p.shown.seen[p.row][j]).reduce((a, b) => a + b, 0);
    return piece(mn(number(row.scores[p.column])), '÷', mn(number(all)), '=', mn(weight, true));
  }
  return piece(mn(e, true), '÷', mn(number(row.total)), '=', mn(weight, true));
}

function output(state, p) {
  const row = p.shown.rows[p.row],
    c = p.letters[2],
    y = p.shown.outputs[p.row];
  const value = state.formula === 'values=keys' ? p.letters[1] : c;
  if (state.formula === 'no-values') return [piece(msub('y', p.row + 1)), vector(y)];
  const seen = row.weights.map((_, j) => j).filter((j) => p.shown.seen[p.row][j]);
  return [
    piece(msub('y', p.row + 1), '=', ...term(row, seen[0], p, value)),
    seen
      .slice(1)
      .map((j) => [html.wbr(), piece(...(row.weights[j] < 0 ? [mo('−')] : ['+']), ...term(row, j, p, value))]),
    html.wbr(),
    vector(y),
    p.heads > 1
      ? html.span({ class: 'note' }, ` Head ${p.head + 1}’s part; the ${p.heads} parts stand side by side.`)
      : null,
  ];
}

function term(row, j, p, letter) {
  const weight = row.weights[j],
    first = j === row.weights.findIndex((_, k) => p.shown.seen[p.row][k]);
  return [mn(number(first ? weight : Math.abs(weight)), j === p.column), msub(letter, j + 1)];
}

function vector(y) {
  const numbers = y.slice(0, MOST_NUMBERS).flatMap((x, c) => (c ? [mo(','), mn(number(x))] : [mn(number(x))]));
  const more = y.length > MOST_NUMBERS;
  return [
    piece('=', mo('('), ...numbers, ...(more ? [mo(','), mi('…')] : []), mo(')')),
    more ? ` ${y.length} numbers` : null,
  ];
}
