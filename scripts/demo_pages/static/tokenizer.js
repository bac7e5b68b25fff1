// The small model's tokens, as clearhead/model/tokens.py cuts them: bytes joined in pairs, within words.

const BLANKS = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const PIECE = new RegExp(
  "'(?:s|t|re|ve|m|ll|d)(?![\\p{L}\\p{N}_])" +
    '| ?[\\p{L}\\p{Nl}\\p{No}]{1,24}' +
    '| ?\\p{Nd}' +
    `| ?(?:(?!${BLANKS})[^\\p{L}\\p{N}]){1,24}` +
    `|${BLANKS}{1,24}(?=${BLANKS}|$)|${BLANKS}`,
  'gu',
);
const SURROUNDING = new RegExp(`^${BLANKS}+|${BLANKS}+$`, 'gu');
const GAPS = new RegExp(`${BLANKS}+`, 'u');
const FIRST_BYTE = 1;

/** A text without what Python takes for blanks at its ends; JavaScript's own trim cuts off a byte order mark, too. */
export function stripped(text) {
  return text.replace(SURROUNDING, '');
}

/** A text's parts between blanks. */
export function splitAtBlanks(text) {
  return stripped(text).split(GAPS);
}

/** Encodes texts, given the pairs that tokens 257, 258 … merge. */
export function makeTokenizer(merges) {
  const bytes = [[], ...Array.from({ length: 256 }, (_, byte) => [byte])];
  const joined = new Map();
  for (const [a, b] of merges) {
    joined.set(pairName(a, b), bytes.length);
    bytes.push([...bytes[a], ...bytes[b]]);
  }

  function encodePiece(piece) {
    let tokens = Array.from(new TextEncoder().encode(piece), (byte) => byte + FIRST_BYTE);
    for (;;) {
      let next = Infinity;
      for (let at = 1; at < tokens.length; at += 1)
        next = Math.min(next, joined.get(pairName(tokens[at - 1], tokens[at])) ?? Infinity);
      if (next === Infinity) return tokens;
      const merged = [];
      for (let at = 0; at < tokens.length; at += 1) {
        const isPair = at + 1 < tokens.length && joined.get(pairName(tokens[at], tokens[at + 1])) === next;
        merged.push(isPair ? next : tokens[at]);
        at += isPair ? 1 : 0;
      }
      tokens = merged;
    }
  }

  return {
    /** `<s>` and the text's tokens. */
    encode: (text) => [0, ...[...text.matchAll(PIECE)].flatMap(([piece]) => encodePiece(piece))],
    /** Each token as text, with bytes that are no letters escaped. */
    names: (tokens) => tokens.map((token) => textOfBytes(bytes[token]) || '<s>'),
  };
}

function pairName(a, b) {
  return a * 65536 + b;
}

function textOfBytes(bytes) {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const size = [1, 2, 3, 4].find((n) => at + n <= bytes.length && decodes(decoder, bytes.slice(at, at + n)));
    text += size
      ? decoder.decode(Uint8Array.from(bytes.slice(at, at + size)))
      : `\\x${bytes[at].toString(16).padStart(2, '0')}`;
    at += size ?? 1;
  }
  return text;
}

function decodes(decoder, bytes) {
  try {
    decoder.decode(Uint8Array.from(bytes));
    return true;
  } catch {
    return false;
  }
}
