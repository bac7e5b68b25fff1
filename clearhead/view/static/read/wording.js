// What a row or a column says, in words: one sentence, of which the page shows the parts and a screen reader hears all.

import { amount } from './colours.js';
import { html } from '../dom.js';
import { number, percent, whole } from '../numbers.js';
import { wordOf } from './tokens.js';

const LEAST_READ = 0.01; // of a weight that a column is worth showing for
const FEW_HEADS = 4;
const WHOLES = { rest: 'the rest', column: 'all it gets', sum: 'the sum', maxima: 'the maxima' };

/** What the items of a part are called: tokens, words or patches. */
export function unitOf({ part: { grid, unit }, layer }) {
  return grid && layer.keys === grid.before + grid.rows * grid.columns ? 'patch' : unit;
}

/** So many of something. */
export function counted(count, unit) {
  return `${whole(count)} ${count === 1 ? unit : unit === 'patch' ? 'patches' : `${unit}s`}`;
}

/** The name of a query or a key in a sentence; its number where it has no text. */
export function wordAt(view, side, at) {
  const name = view.names[side][at];
  if (name === undefined) return `number ${whole(at)}`;
  return /[\p{L}\p{N}\p{S}]/u.test(name) ? wordOf(name) : `“${wordOf(name)}”`;
}

/** A weight as it is printed: a share, or a number when it is multiplied by a length. */
export function printed(view, weight) {
  return amount(weight, view.about.measure === 'value');
}

/** How far the other of a pair is from the chosen one, in words; nothing for two texts. */
export function distanceOf(view, row, column) {
  if (view.part.crosses || view.part.grid) return '';
  const back = (row + view.layer.sees.offset - column) * (view.by === 'row' ? 1 : -1);
  if (!back) return 'itself';
  return `${counted(Math.abs(back), unitOf(view))} ${back > 0 ? 'back' : 'on'}`;
}

/** Why a query gives a key exactly nothing. */
export function whyNothing(view, row, column) {
  const { low, high, offset, other } = view.layer.sees,
    far = column - row - offset;
  if (high !== null && far > high) return high === 0 ? 'later: not seen' : 'beyond its window: not seen';
  if (low !== null && far < low) return 'before its window: not seen';
  return other ? 'hidden, or too small for float32 to hold' : 'too small for float32 to hold';
}

/** Whether a query can see a key, as far as a band tells. */
export function inBand(view, row, column) {
  const { low, high, offset } = view.layer.sees,
    far = column - row - offset;
  return (high === null || far <= high) && (low === null || far >= low);
}

/** The sentence, as parts: plain text, ['q', a word of the text], ['em', the pair's number], ['b', another]. */
export function sentenceOf(view) {
  const parts = (view.by === 'row' ? rowSentence(view) : columnSentence(view)).filter((part) => part !== '');
  if (typeof parts[0] === 'string') parts[0] = parts[0][0].toUpperCase() + parts[0].slice(1);
  return parts;
}

function rowSentence(view) {
  const { line, row, column, pair } = view,
    unit = unitOf(view);
  const who = ['q', wordAt(view, 'queries', row)],
    what = ['q', wordAt(view, 'keys', column)],
    share = ['em', printed(view, pair)];
  const which = numbered(view) ? ` (${whole(column)})` : ''; // an index only where two words are alike
  const where = distanceOf(view, row, column),
    away = where && where !== 'itself' ? `, ${where}` : '';
  const start = [headsOf(view), who],
    most = isMost(view) ? ' at most' : '',
    end = carried(view, unit);
  if (!pair) return [...start, ' puts ', share, ' on ', what, `: ${whyNothing(view, row, column)}. `, ...end];
  const on = [where === 'itself' ? 'itself' : what, which, away];
  if (view.about.measure === 'value')
    return [...start, ` takes${most} `, share, ' from ', ...on, ', weight times the value’s length. ', ...end];
  const canRest = !view.part.crosses && unit !== 'patch';
  if (canRest && !column && where !== 'itself')
    return [...start, ` rests${most} `, share, ` on the first ${unit}, `, what, `${away}. `, ...end];
  const puts = [` puts${most} `, share, ' on ', ...on];
  if (!canRest || !column || line.first < LEAST_READ) return [...start, ...puts, '. ', ...end];
  const rests = [` rests${most} `, ['b', percent(line.first)], ` on the first ${unit}`];
  const both = line.first > pair ? [...rests, ', and', ...puts] : [...puts, ', and', ...rests]; // what is most comes first
  return [...start, ...both, '. ', ...carried(view, unit, [0, column])];
}

/** Whether the two words of a pair are alike, and not the same one. */
function numbered(view) {
  const { row, column } = view;
  return (
    !view.part.crosses &&
    distanceOf(view, row, column) !== 'itself' &&
    wordAt(view, 'queries', row) === wordAt(view, 'keys', column)
  );
}

/** How few items carry most, unless it is one that was just named. */
function carried(view, unit, named = [view.by === 'row' ? view.column : view.row]) {
  const { line } = view,
    few = line.carriers['90'];
  if (!few || (few === 1 && named.includes(line.top[0][0]))) return [];
  const of = wholeOf(view);
  return [`${counted(few, unit)} ${few === 1 ? 'carries' : 'carry'} 90 %${of && ` of ${WHOLES[of]}`}.`];
}

/** What the listed shares are shares of, in a word; nothing for a row's weights, which sum to 1. */
export function wholeOf(view) {
  if (view.without) return 'rest';
  if (view.by === 'column') return 'column';
  if (view.about.measure === 'value') return 'sum';
  return isMost(view) ? 'maxima' : '';
}

/** The same as a sentence, with its size. */
export function wholeSaid(view) {
  const { line, without, about } = view,
    sum = without ? line.sum - line.first : line.sum,
    of = wholeOf(view);
  const size = of === 'rest' && about.measure === 'weight' && !isMost(view) ? percent(sum) : number(sum);
  return of && `Sums are shares of ${WHOLES[of]}, ${size}.`;
}

/** Whether a weight is the largest of several heads. */
function isMost({ about: { join, heads } }) {
  return join === 'max' && heads.length > 1;
}

function columnSentence(view) {
  const { line, row, column, pair } = view,
    unit = unitOf(view);
  const what = ['q', wordAt(view, 'keys', column)],
    share = ['em', printed(view, pair)];
  if (!line.top.length) return [headsOf(view), 'nothing here puts any weight on ', what, '.'];
  const who = ['q', wordAt(view, 'queries', row)],
    which = numbered(view) ? ` (${whole(row)})` : '',
    where = distanceOf(view, row, column);
  const away = where && where !== 'itself' ? `, ${where}` : '';
  if (nobodyReads(view)) {
    const from = where === 'itself' ? ['itself'] : [who, which, away];
    return [
      headsOf(view),
      'nothing here puts more than 1 % on ',
      what,
      ': the most is ',
      share,
      ', from ',
      ...from,
      '.',
    ];
  }
  const most = isMost(view) ? ' at most' : '';
  const [verb, word] = view.about.measure === 'value' ? [` takes${most} `, ' from '] : [` puts${most} `, ' on '];
  const end = ['. ', ...carried(view, unit)];
  if (where === 'itself') return [headsOf(view), what, verb, share, word, 'itself', ...end];
  return [headsOf(view), who, which, away && `${away},`, verb, share, word, what, ...end];
}

/** Whether no query puts much on the column's key, and none was chosen. */
export function nobodyReads(view) {
  return (
    view.by === 'column' &&
    view.state.row === null &&
    view.about.measure === 'weight' &&
    (view.line.top[0]?.[1] ?? 0) < LEAST_READ
  );
}

/** The beginning of a sentence about several heads. */
function headsOf(view) {
  const { join, heads } = view.about;
  if (join === 'one' || heads.length === 1) return '';
  const which =
    heads.length <= FEW_HEADS ? `heads ${[...heads].sort((a, b) => a - b).join(', ')}` : `${heads.length} heads`;
  return join === 'mean' ? `In the mean of ${which}, ` : `Over ${which}, `;
}

/** Parts of a sentence on the page. */
export function sentenceView(parts) {
  return parts.map((part) => (typeof part === 'string' ? part : html[part[0]](null, part[1])));
}

/** Parts of a sentence as text. */
export function spoken(parts) {
  return parts.map((part) => (typeof part === 'string' ? part : part[1])).join('');
}

/** A sum's distance from 1, as an order of magnitude that bounds it. */
export function bound(difference) {
  if (!difference) return '0';
  const power = Math.floor(Math.log10(difference)),
    digit = Math.ceil(difference / 10 ** power - 1e-9);
  return digit === 10
    ? `1e${power + 1}`.replace('-', '−')
    : power < -3
      ? `${digit}e${power}`.replace('-', '−')
      : number(difference);
}
