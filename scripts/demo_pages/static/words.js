// Splits a text into the items of attention, as clearhead/words/tokens.py does: words, numbers and emoji.

// A text is matched through a shadow in which each character is replaced by its class: L letter, D digit, ' apostrophe,
// . point or comma, E picture, V variation selector or skin tone, J joiner, R half a flag, - other, space invisible.
const ITEM = /D[LDV]*(?:\.D[LDV]*)*|L(?:J?[LDV])*(?:'[LD](?:J?[LDV])*)*|RR?|E[VL]*(?:JE[VL]*)*/g;
const FIRST_PICTURE = 0x2190;

/** The items of a text in order, in lower case, and the visible characters outside all items, each once. */
export function itemsIn(text) {
  const letters = normalizedLetters(text),
    shadow = letters.map(characterClass).join('');
  const tokens = [],
    rest = [];
  let end = 0;
  for (const { 0: match, index } of shadow.matchAll(ITEM)) {
    tokens.push(letters.slice(index, index + match.length).join(''));
    rest.push(...letters.slice(end, index));
    end = index + match.length;
  }
  rest.push(...letters.slice(end));
  return { tokens, leftOut: [...new Set(rest.filter((c) => !' VJ'.includes(characterClass(c))))] };
}

/** Whether a token contains a Latin letter a to z, accents aside. */
export function isLatin(token) {
  return /[a-z]/.test(token.normalize('NFD'));
}

/** Whether a token begins with a digit of any script. */
export function isNumeric(token) {
  return /^\p{Nd}/u.test(token);
}

/** The word without its accents. */
export function unaccented(word) {
  return word.normalize('NFD').replace(/\p{Mn}/gu, '');
}

/** The text's characters in lower case and normal form NFKC, without soft hyphens and other format characters. */
function normalizedLetters(text) {
  const plain = text
    .replace(/[‘’ʼ`´]/g, "'")
    .normalize('NFKC')
    .toLowerCase()
    .replaceAll('\u200b', ' ');
  const whole = plain.replace(/[\ud800-\udfff]/gu, '\ufffd'); // halves of pairs
  return [...whole].filter((c) => !/\p{Cf}/u.test(c) || c === '\u200d' || c === '\u200c');
}

function characterClass(c) {
  const code = c.codePointAt(0);
  if (/\p{Nd}/u.test(c)) return 'D';
  if (c === '\ufe0f' || c === '\ufe0e' || (code >= 0x1f3fb && code <= 0x1f3ff)) return 'V';
  if (/[\p{L}\p{M}\p{N}]/u.test(c) || c === '\u200c') return 'L';
  if (code >= 0x1f1e6 && code <= 0x1f1ff) return 'R';
  if (/\p{So}/u.test(c) && code >= FIRST_PICTURE && c !== '\ufffd') return 'E';
  if (c === '\u200d') return 'J';
  if (/[\p{Z}\p{C}]/u.test(c)) return ' ';
  return { "'": "'", '.': '.', ',': '.' }[c] ?? '-';
}
