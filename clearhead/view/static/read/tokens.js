// How a token's text is shown: blanks, newlines and what has no shape get visible marks.

const MARKS = { '\n': '⏎', '\r': '␍', '\t': '⇥' };
const ODD = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g; // what would move the line or show nothing
const BLANK = /^[\s\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad]+$/u;
const CLOSING = /^(##|[\p{Pe}\p{Pf}.,;:!?%…])/u;
const BYTES = /^( *)((?:\\x[0-9a-f]{2})+)$/i;
const MOST_PIECES = 16; // of one character
const OWN_WORD = /^[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}]/u; // scripts without blanks
const NEVER_FIRST = /^[\p{Pe}\p{Pf}\p{Po}ー]/u;
const LONGEST_WORD = 32;

/** A token as it stands in a line: the blanks before it, its text, and whether that is a mark in place of text. */
export function shownToken(name) {
  if (name === undefined) return { lead: '', text: '…', mark: true };
  if (name === '') return { lead: '', text: '∅', mark: true };
  if (BLANK.test(name)) return { lead: '', text: [...name].map(markOf).join(''), mark: true };
  const lead = /^ */.exec(name)[0];
  return { lead, text: name.slice(lead.length).replace(ODD, markOf), mark: false };
}

/** A sign for a character that has no shape of its own. */
function markOf(character) {
  const code = character.codePointAt(0);
  if (MARKS[character]) return MARKS[character];
  if (code === 0x7f) return '␡';
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (/\p{Zs}/u.test(character)) return '␣';
  return `‹${code.toString(16).toUpperCase().padStart(4, '0')}›`;
}

/** A token's text in a sentence: without the blanks around it, and not longer than a line. */
export function wordOf(name) {
  const letters = [...shownToken(name?.trim() || name).text];
  return letters.length > LONGEST_WORD ? `${letters.slice(0, LONGEST_WORD - 1).join('')}…` : letters.join('');
}

/** The character that tokens share byte by byte, from a token on: { text, count } with the number of tokens, or null. */
export function sharedCharacter(names, from) {
  const bytes = [];
  for (let count = 1; count <= MOST_PIECES && BYTES.test(names[from + count - 1] ?? ''); count += 1) {
    const [, lead, digits] = BYTES.exec(names[from + count - 1]);
    if (lead && count > 1) return null;
    bytes.push(...digits.match(/[0-9a-f]{2}/gi).map((pair) => parseInt(pair, 16)));
    try {
      return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(new Uint8Array(bytes)), count };
    } catch {
      // the character goes on in the next token, or these bytes are none
    }
  }
  return null;
}

/** Whether a line ends behind this token. */
export function endsLine(name) {
  return name !== undefined && name.includes('\n');
}

/** Whether tokens are whole words, or numbers, without the blanks between them, which then have to be drawn. */
export function areWords(names) {
  const some = names.slice(0, 500);
  if (some.length > 1 && some.every((name) => /^\d+$/.test(name))) return true; // tokens' numbers in a vocabulary
  return some.filter((name) => /\p{L}/u.test(name)).length > 1 && !some.some((name) => /^\s.|.\s$/su.test(name));
}

/** Whether a line may end between two tokens' texts: at blanks, and between letters that are words themselves. */
export function mayBreak(before, after) {
  return (
    /\s$/.test(before) ||
    /^\s/.test(after) ||
    (!NEVER_FIRST.test(after) && (OWN_WORD.test(before.at(-1)) || OWN_WORD.test(after)))
  );
}

/** Whether a blank belongs before a whole word. */
export function hasGap(name) {
  return !CLOSING.test(name ?? '');
}

/** Neighbouring tokens as one piece of text. */
export function joinedTokens(names, words) {
  return names
    .map((name, at) => {
      const { lead, text } = shownToken(name);
      return `${words ? (at && hasGap(name) ? ' ' : '') : lead}${text.slice(0, LONGEST_WORD)}`;
    })
    .join('');
}
