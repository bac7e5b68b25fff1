// Word vectors of a sentence, as clearhead/words/vectors.py chooses them, and the notes that tell a reader about them.

import { Refused } from './ask.js';
import { dataOf, dequantized } from './data.js';
import { inflections, irregularForms, spellings } from './forms.js';
import { compoundOf, letterBuckets, stemOf } from './pieces.js';
import { isLatin, isNumeric, itemsIn, unaccented } from './words.js';
import { countedInWords, pythonString } from './wording.js';

const TYPICAL_LENGTH = Math.SQRT2;
const STEM_SHARE = 0.4,
  COMPOUND_SHARE = 0.5; // of the pieces in a composed vector
const MOST_WORDS_NAMED = 6,
  MOST_SIGNS_NAMED = 24;
const NOTES = {
  number: 'Read as numbers, which share one vector',
  accents: 'Read without accents, which makes another word of some, above all of other languages',
  spelling: 'Read in another spelling',
  inflection: 'Not in the vocabulary, so another form of the word stands in',
  stem: 'Not in the vocabulary, so composed of a stem and letters',
  compound: 'Not in the vocabulary, so composed of two words and letters',
  letters: 'Not in the vocabulary, so guessed from letters alone; the less sure the guess, the shorter the vector',
  nothing: 'No vector is known for it: all zeros, an item that carries no meaning',
};
const BARE = ['number', 'letters', 'nothing', 'known']; // ways that name no other word
let vocabulary = null;

/** A text's items: { tokens, x, notes }, one vector each. Throws Refused for a text without any item. */
export async function embedded(text) {
  vocabulary ??= await readVocabulary();
  const { tokens, leftOut } = itemsIn(text);
  if (!tokens.length) {
    const letters = [...text],
      shown = letters.length <= 40 ? text : `${letters.slice(0, 39).join('')}…`;
    throw new Refused(`There is no word in ${pythonString(shown)}: give a text of at least one word.`);
  }
  const byToken = new Map([...new Set(tokens)].map((token) => [token, lookedUp(token)]));
  const found = tokens.map((token) => byToken.get(token));
  return { tokens, x: found.map(({ vector }) => vector), notes: notesOn(found, leftOut) };
}

async function readVocabulary() {
  const file = await dataOf('words');
  const words = file.vocabulary.split('\n'),
    index = new Map();
  for (const spelled of [words, words.map((word) => word.toLowerCase())])
    spelled.forEach((word, at) => index.has(word) || index.set(word, at));
  return {
    index,
    irregular: irregularForms(file.irregular),
    vectors: dequantized(file.vectors, file.scales),
    grams: dequantized(file.grams, file.gram_scales),
  };
}

function notesOn(found, leftOut) {
  const notes = Object.entries(NOTES).flatMap(([how, sentence]) => {
    const named = [...new Set(found.filter((one) => one.how === how).map(nameWithSources))];
    return named.length ? [`${sentence}: ${abbreviated(named, ', ', MOST_WORDS_NAMED)}`] : [];
  });
  const signs = leftOut.map((sign) => `“${sign}”`);
  if (signs.length) notes.push(`Left out, because signs have no vectors: ${abbreviated(signs, ' ', MOST_SIGNS_NAMED)}`);
  return notes;
}

function nameWithSources({ token, how, sources }) {
  return BARE.includes(how) ? `“${token}”` : `“${token}” (${sources.join(' + ')})`;
}

function abbreviated(named, between, most) {
  const more = named.length > most ? ` and ${countedInWords(named.length - most)} more` : '';
  return named.slice(0, most).join(between) + more;
}

/** The vector of a token, known or not. */
function lookedUp(token) {
  for (const [how, source] of lookupKeys(token)) {
    const row = vocabulary.index.get(source);
    if (row !== undefined) return { token, vector: rowOf(vocabulary.vectors, row), how, sources: [source] };
  }
  const plain = unaccented(token);
  if (isLatin(token) && !isNumeric(token)) {
    const root = stemOf(plain, vocabulary.index);
    if (root) return composed(token, plain, 'stem', [root], STEM_SHARE);
    const halves = compoundOf(plain, vocabulary.index);
    if (halves) return composed(token, plain, 'compound', halves, COMPOUND_SHARE);
    return { token, vector: lettersGuess(plain).map((x) => TYPICAL_LENGTH * x), how: 'letters', sources: [] };
  }
  return { token, vector: Array(vocabulary.vectors.width).fill(0), how: 'nothing', sources: [] };
}

function* lookupKeys(token) {
  yield ['known', token];
  if (isNumeric(token)) {
    yield ['number', '#'];
    return;
  }
  const plain = unaccented(token);
  for (const spelled of spellings(token)) yield [spelled === plain ? 'accents' : 'spelling', spelled];
  for (const form of inflections(plain, vocabulary.irregular)) yield ['inflection', form];
}

/** The pieces' direction mixed with the letters'. */
function composed(token, plain, how, sources, share) {
  const pieces = sources.map((source) => unit(rowOf(vocabulary.vectors, vocabulary.index.get(source))));
  const own = unit(summed(pieces)),
    guess = unit(lettersGuess(plain));
  const vector = unit(own.map((x, c) => share * x + (1 - share) * guess[c])).map((x) => TYPICAL_LENGTH * x);
  return { token, vector, how, sources };
}

function lettersGuess(plain) {
  const at = letterBuckets(plain, vocabulary.grams.rows);
  return summed(at.map((row) => rowOf(vocabulary.grams, row))).map((x) => x / Math.sqrt(at.length));
}

function rowOf({ width, values }, row) {
  return [...values.subarray(row * width, (row + 1) * width)];
}

function summed(vectors) {
  return vectors[0].map((_, c) => vectors.reduce((total, vector) => total + vector[c], 0));
}

function unit(vector) {
  const length = Math.sqrt(vector.reduce((total, x) => total + x * x, 0));
  return length ? vector.map((x) => x / length) : vector;
}
