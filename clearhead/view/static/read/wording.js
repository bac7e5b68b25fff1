// What a row or a column says, in words: one sentence, of which the page shows the parts and a screen reader hears all.

import { amount } from './colours.js';
import { html } from '../dom.js';
import { number, percent, whole } from '../numbers.js';
import { areWords, wordOf } from './tokens.js';

const LEAST_READ = 0.01; // of a weight that a column is worth showing for
const FEW_HEADS = 4;

/** What the items of a side are called: tokens, words or patches. */
export function unitOf(view, side) {
  const { grid } = view.part;
  if (grid && view.layer.keys === grid.before + grid.rows * grid.columns) return 'patch';
  return areWords(view.names[side]) ? 'word' : 'token';
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
  return `${counted(Math.abs(back), unitOf(view, 'keys'))} ${back > 0 ? 'back' : 'on'}`;
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

/** The sentence, as parts: plain text, ['q', a word of the text], ['em', the number]. */
export function sentenceOf(view) {
  const parts = (view.by === 'row' ? rowSentence(view) : columnSentence(view)).filter((part) => part !== '');
  if (typeof parts[0] === 'string') parts[0] = parts[0][0].toUpperCase() + parts[0].slice(1);
  return parts;
}

function rowSentence(view) {
  const { line, row, column, pair } = view,
    unit = unitOf(view, 'keys');
  const who = ['q', wordAt(view, 'queries', row)],
    what = ['q', wordAt(view, 'keys', column)],
    share = ['em', printed(view, pair)];
  const which = numbered(view) ? ` (${whole(column)})` : ''; // an index only where two words are alike
  const where = distanceOf(view, row, column),
    away = where && where !== 'itself' ? `, ${where}` : '';
  const start = headsOf(view);
  if (!pair)
    return [start, who, ' puts ', share, ' on ', what, `: ${whyNothing(view, row, column)}. `, ...carried(view, unit)];
  if (view.about.measure === 'value') {
    return [
      start,
      who,
      ' takes ',
      share,
      ' from ',
      where === 'itself' ? 'itself' : what,
      which,
      away,
      ', weight times the value’s length. ',
      ...carried(view, unit),
    ];
  }
  if (!column && where !== 'itself' && !view.part.crosses && unit !== 'patch') {
    return [start, who, ' rests ', share, ` on the first ${unit}, `, what, `${away}. `, ...carried(view, unit)];
  }
  const rests = !view.part.crosses && unit !== 'patch' && line.first >= LEAST_READ && column;
  return [
    start,
    who,
    ' puts ',
    share,
    ' on ',
    where === 'itself' ? 'itself' : what,
    which,
    away,
    rests ? `, and rests ${percent(line.first)} on the first ${unit}` : '',
    '. ',
    ...carried(view, unit),
  ];
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

/** How few items carry most. */
function carried(view, unit) {
  const { line, without } = view,
    few = line.carriers['90'];
  const other = view.by === 'row' ? view.column : view.row;
  if (!few || (few === 1 && line.top[0][0] === other)) return []; // that one was just named
  const of = without
    ? ' of the rest'
    : view.by === 'column'
      ? ' of all it gets'
      : view.about.measure === 'value'
        ? ' of the sum'
        : '';
  return [`${counted(few, unit)} ${few === 1 ? 'carries' : 'carry'} 90 %${of}.`];
}

function columnSentence(view) {
  const { line, row, column, pair } = view,
    unit = unitOf(view, 'queries');
  const what = ['q', wordAt(view, 'keys', column)];
  if (!line.top.length) return [headsOf(view), 'nothing here puts any weight on ', what, '.'];
  if (nobodyReads(view)) return [headsOf(view), 'nothing here puts more than 1 % on ', what, '.'];
  const who = ['q', wordAt(view, 'queries', row)],
    where = distanceOf(view, row, column);
  const away = where && where !== 'itself' ? `, ${where},` : '';
  const verb = view.about.measure === 'value' ? ' takes ' : ' puts ',
    word = view.about.measure === 'value' ? ' from ' : ' on ';
  if (where === 'itself') {
    return [headsOf(view), what, verb, ['em', printed(view, pair)], word, 'itself. ', ...carried(view, unit)];
  }
  return [
    headsOf(view),
    who,
    numbered(view) ? ` (${whole(row)})` : '',
    away,
    verb,
    ['em', printed(view, pair)],
    word,
    what,
    '. ',
    ...carried(view, unit),
  ];
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
  return join === 'mean' ? `In the mean of ${which}, ` : `At most over ${which}, `;
}

/** Parts of a sentence on the page. */
export function sentenceView(parts) {
  return parts.map((part) =>
    typeof part === 'string' ? part : part[0] === 'q' ? html.q(null, part[1]) : html.em(null, part[1]),
  );
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
