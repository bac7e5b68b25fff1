// Other forms of a word, as clearhead/words/forms.py lists them: in other spellings, in other inflections.

import { unaccented } from './words.js';

const INFLECTED = [
  ["'s", ''],
  ["s'", 's'],
  ['ies', 'y'],
  ['es', ''],
  ['s', ''],
  ['ves', 'f'],
  ['ves', 'fe'],
  ['ied', 'y'],
  ['ed', 'e'],
  ['ed', ''],
  ['ing', 'e'],
  ['ing', ''],
  ['iest', 'y'],
];
const CONTRACTED = ["'ve", "'re", "'ll", "'d", "'m", "n't", "'s"];
const APOSTROPHES = [
  ['nt', "n't"],
  ['ve', "'ve"],
  ['re', "'re"],
  ['ll', "'ll"],
  ['m', "'m"],
  ['d', "'d"],
  ['s', "'s"],
];
const TAKES_ES = /^.*(?:s|x|z|ch|sh|o)$/;
const DOUBLES = /^(?:.*[^aeiou])?[aeiou][^aeiouwxy]$/;
const MUST_DOUBLE = /^[^aeiou]*[aeiou][^aeiouwxy]$/;

/** A word without an ending, or as it is. */
export function withoutEnding(word, ending) {
  return ending && word.endsWith(ending) ? word.slice(0, -ending.length) : word;
}

/** Other spellings of the same word: without accents, and with an apostrophe that the writer left out. */
export function* spellings(word) {
  const plain = unaccented(word);
  if (plain !== word) yield plain;
  for (const [ending, spelled] of APOSTROPHES)
    if (plain.endsWith(ending) && plain !== ending) yield withoutEnding(plain, ending) + spelled;
}

/** Candidates for other inflections of the same word; `irregular` has { plain, inflected }, maps from forms to lists. */
export function* inflections(word, irregular) {
  for (const ending of CONTRACTED) if (word.endsWith(ending) && word !== ending) yield withoutEnding(word, ending);
  const plain = [...(irregular.plain.get(word) ?? []), ...regularStems(word)].filter((form) => form.length >= 3);
  yield* plain;
  for (const form of [word, ...plain]) {
    yield* irregular.inflected.get(form) ?? [];
    yield* otherEndings(form);
  }
}

/** Irregular forms to plain forms, and plain forms to irregular ones, from lines of both. */
export function irregularForms(text) {
  const found = { plain: new Map(), inflected: new Map() };
  const add = (map, key, form) => map.set(key, [...(map.get(key) ?? []), form]);
  for (const line of text.trim().split('\n')) {
    const [form, base] = line.split(' ');
    add(found.plain, form, base);
    add(found.inflected, base, form);
  }
  return found;
}

function* regularStems(word) {
  for (const [ending, rest] of INFLECTED) {
    const stem = withoutEnding(word, ending);
    if (stem === '' || stem === word || (ending === 'es' && !TAKES_ES.test(stem))) continue;
    if ((ending === 'ed' || ending === 'ing') && !rest) {
      if (!MUST_DOUBLE.test(stem)) yield stem;
      if (stem.at(-1) === stem.at(-2) && DOUBLES.test(stem.slice(0, -1))) yield stem.slice(0, -1);
    } else yield stem + rest;
  }
}

function* otherEndings(form) {
  if (form.length >= 4) {
    yield form + (TAKES_ES.test(form) ? 'es' : 's');
    if (form.endsWith('y')) yield `${form.slice(0, -1)}ies`;
  }
  if (form.length >= 5) {
    yield `${withoutEnding(form, 'e')}ed`;
    yield `${withoutEnding(form, 'e')}ing`;
    if (form.endsWith('y')) yield `${form.slice(0, -1)}ied`;
  }
}
