// Learned heads on the reader's sentence, as clearhead/view/learned.py measures them.

import { Refused } from './ask.js';
import { forwardPass, rowDot, smallModel } from './model.js';
import { fixed, percent } from './numbers.js';
import { stripped } from './tokenizer.js';

const SHOWN_HEADS = [
  ['0.0', 'itself'],
  ['1.1', 'the piece before'],
  ['3.3', 'what came next'],
  ['2.1', 'rests at the start'],
  ['0.2', 'signs'],
  ['1.2', 'many at once'],
];
const MOST_GUESSES = 5;
const MOST_PIECES = 48; // of a sentence
const MOST_PIECES_SHOWN = 12;

/** The sentence's pieces, the named heads' weights on them, and the next piece with all heads and without each. */
export async function learnedHeads(text) {
  const model = await smallModel(),
    { tokens, names } = readSentence(model, text),
    done = forwardPass(model, tokens),
    chances = nextChances(done);
  const likeliest = [...chances.keys()].sort((a, b) => chances[b] - chances[a] || a - b).slice(0, MOST_GUESSES);
  const guessed = model.tokenizer.names(likeliest).map(visibleBlanks);
  return {
    text,
    names,
    guesses: likeliest.map((token, n) => ({ name: guessed[n], chance: chances[token] })),
    heads: SHOWN_HEADS.map(([head, kind]) => {
      const w = weightsOfHead(done, head);
      const off = nextChances(forwardPass(model, tokens, [head]));
      const measure = headMeasure(kind, w, tokens, names);
      return {
        head,
        kind,
        measure,
        weights: w.slice(0, MOST_PIECES_SHOWN),
        without: likeliest.map((token) => off[token]),
      };
    }),
  };
}

/** One head's queries, keys, values and scale on a sentence's first pieces. */
export async function headVectors(text, which) {
  const model = await smallModel();
  const [layer, head] = which.split('.').map(Number);
  if (!model.layers[layer] || !(head < model.heads))
    throw new Refused(
      `head ${which} is not one of the small model's ${model.layers.length} × ${model.heads}: choose one, such as 3.3.`,
    );
  const { tokens, names } = readSentence(model, text),
    { heads, dim, scale } = forwardPass(model, tokens).passes[layer];
  const rows = (x) =>
    Array.from({ length: Math.min(MOST_PIECES_SHOWN, tokens.length) }, (_, i) => [
      ...x.subarray(i * dim, (i + 1) * dim),
    ]);
  const { q, k, v } = heads[head];
  const left = Math.max(0, names.length - MOST_PIECES_SHOWN);
  return {
    text,
    head: which,
    names: names.slice(0, MOST_PIECES_SHOWN),
    left,
    scale,
    q: rows(q),
    k: rows(k),
    v: rows(v),
  };
}

function readSentence({ tokenizer }, text) {
  const tokens = tokenizer.encode(stripped(text)).slice(0, MOST_PIECES);
  return { tokens, names: tokenizer.names(tokens).map(visibleBlanks) };
}

function visibleBlanks(name) {
  return name.replaceAll(' ', '␣').replaceAll('\n', '⏎').replaceAll('\t', '⇥');
}

function nextChances({ logits }) {
  const largest = logits.reduce((a, b) => Math.max(a, b)),
    e = Float64Array.from(logits, (logit) => Math.exp(logit - largest)),
    total = e.reduce((a, b) => a + b);
  return e.map((value) => value / total);
}

/** Each row's weights on itself and what is before it. */
function weightsOfHead({ passes }, which) {
  const [layer, head] = which.split('.').map(Number),
    { heads, dim, scale } = passes[layer],
    { q, k, lse } = heads[head];
  return Array.from(lse, (own, i) =>
    Array.from({ length: i + 1 }, (_, j) => Math.exp(scale * rowDot(q, i * dim, k, j * dim, dim) - own)),
  );
}

/** The measure of a kind of head on this sentence, as a short text. */
function headMeasure(kind, w, tokens, names) {
  const n = tokens.length;
  if (kind === 'many at once') {
    const effective = w.map((row) =>
      Math.exp(-row.reduce((sum, weight) => sum + (weight ? weight * Math.log(weight) : 0), 0)),
    );
    return `as if ${fixed(meanOf(effective), 1)}`;
  }
  if (kind === 'signs') {
    const signs = names.map(isSign);
    if (!signs.some(Boolean)) return 'none';
    return percent(meanOf(w.map((row) => row.reduce((sum, weight, j) => sum + (signs[j] ? weight : 0), 0))));
  }
  if (kind === 'itself') return percent(meanOf(w.map((row, i) => row[i])));
  if (n < 2) return 'none';
  if (kind === 'the piece before') return percent(meanOf(w.slice(1).map((row, i) => row[i])));
  if (kind === 'rests at the start') return percent(meanOf(w.slice(1).map((row) => row[0])));
  const copies = tokens.flatMap((token, i) => {
    const last = i ? tokens.lastIndexOf(token, i - 1) : -1;
    return last < 0 ? [] : [w[i][last + 1]];
  });
  return copies.length ? percent(meanOf(copies)) : 'none';
}

/** Whether a token is ASCII punctuation. */
function isSign(name) {
  return /^[\x21-\x7e]+$/.test(stripped(name)) && !/[a-z\d<\\]/i.test(name);
}

function meanOf(numbers) {
  return numbers.reduce((a, b) => a + b, 0) / numbers.length;
}
