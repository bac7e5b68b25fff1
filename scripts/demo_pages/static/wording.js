// Numbers, items and lists in sentences, as clearhead/wording.py writes them.

import { fixed, power } from './numbers.js';

const MOST_LISTED = 4;

/** Four decimals, or an exponent where those would hide the number; only 0 itself is written 0. */
export function plainNumber(value) {
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  const size = Math.abs(Number(value.toPrecision(12)));
  if (!size) return '0';
  if (size >= 1e-4 && size < 1e6) return fixed(value, 4).replace('−', '-');
  const [digits, exponent] = power(value, size < 1 ? 1 : 3)
    .replace(/−/g, '-')
    .split('e');
  return `${digits}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`;
}

/** A count in groups of three digits. */
export function countedInWords(n) {
  return String(n).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** A count with its noun, in singular or plural. */
export function countOf(n, noun) {
  return `${countedInWords(n)} ${n === 1 ? noun : `${noun}s`}`;
}

/** A token in quotation marks, with visible signs for what cannot be seen. */
export function quotedToken(token) {
  if (/^ *$/.test(token)) return `“${'␣'.repeat(token.length) || '(empty)'}”`;
  return `“${token.replace(/[^\P{C}\u200c\u200d]|[^\P{Z} ]/gu, escaped)}”`;
}

/** A list of words in a sentence; of more than four, the first ones and the number of others. */
export function listedWords(words) {
  const some =
    words.length > MOST_LISTED
      ? [...words.slice(0, MOST_LISTED), `${countedInWords(words.length - MOST_LISTED)} more`]
      : words;
  return [some.slice(0, -1).join(', '), some.at(-1)].filter(Boolean).join(' and ');
}

/** A string as Python prints it. */
export function pythonString(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const plain = text.replaceAll('\\', '\\\\').replaceAll(quote, `\\${quote}`);
  return quote + plain.replace(/\p{C}|[^\P{Z} ]/gu, escaped) + quote;
}

function escaped(c) {
  const known = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }[c];
  if (known) return known;
  const code = c.codePointAt(0).toString(16);
  return code.length <= 2
    ? `\\x${code.padStart(2, '0')}`
    : code.length <= 4
      ? `\\u${code.padStart(4, '0')}`
      : `\\U${code.padStart(8, '0')}`;
}
