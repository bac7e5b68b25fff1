// What there is to read: the small model over any text, computed here, or what another model did once, as recorded.

import { Refused } from './ask.js';
import { dataOf, floatsOf, halvesOf } from './data.js';
import { valueLengths } from './heads.js';
import { forwardPass, smallModel } from './model.js';
import { splitAtBlanks, stripped } from './tokenizer.js';
import { countedInWords, pythonString } from './wording.js';

const CAUSAL = { low: null, high: 0, offset: 0, other: false };
const NOT_COMPARED = 'this page ran the model itself, and has no other output to compare with';
const BYTE_RUN = /(?:\\x[0-9a-f]{2})+/g;

/** The small model over a text; what exceeds its context is left out, and a note says so. */
export async function smallReading(text) {
  if (!stripped(text)) throw new Refused('There is no text: type a sentence.');
  const model = await smallModel(),
    every = model.tokenizer.encode(text),
    tokens = every.slice(0, model.context),
    names = model.tokenizer.names(tokens),
    left = every.length - tokens.length;
  const { passes } = forwardPass(model, tokens);
  const heads = Array.from({ length: model.heads }, (_, head) => head);
  const cut = `The small model reads ${model.context} tokens: the last ${countedInWords(left)} of this text are left out.`;
  const setup = [
    'import clearhead.model',
    'model = clearhead.model.load()',
    `done = model.forward(model.tokenizer.encode(${pythonString(text)})[:${model.context}])`,
  ];
  return {
    described: {
      name: 'the small model',
      title: beginning(text),
      notes: [...(left > 0 ? [cut] : []), ...noteOnBytes(names)],
      again: true,
      picture: false,
      code: { setup, weights: 'w = done.layers[LAYER].weights[HEAD]', values: 'v = done.layers[LAYER].v[HEAD]' },
      parts: [
        {
          name: 'decoder',
          crosses: false,
          steps: [names.length],
          grid: null,
          matches: true,
          unit: 'token',
          values: true,
          layers: passes.map((_, number) => ({
            number,
            heads,
            key_heads: heads,
            queries: names.length,
            keys: names.length,
            sees: CAUSAL,
            edits: [],
          })),
        },
      ],
    },
    names,
    ids: tokens,
    layers: passes.map(({ heads: own, dim, scale }) => ({
      heads: own.map(({ q, k, v, lse }) => ({ q, k, lse, dim, scale, lengths: valueLengths(v, dim) })),
      trust: { checked: false, failed: false, rows: 0, difference: null, allowed: null, said: NOT_COMPARED },
    })),
  };
}

/** What a model did once: its queries and keys in 16 bits, as it ran, of some heads. */
export async function recordedReading(name) {
  const { described, names, ids, layers } = await dataOf(name);
  return {
    described,
    names,
    ids,
    layers: layers.map(({ heads, keys, dim, scale, trust }) => {
      const known = keys.map(halvesOf);
      return {
        heads: heads.map(({ q, key, lse, lengths }) => ({
          q: halvesOf(q),
          k: known[key],
          lse: floatsOf(lse),
          lengths: floatsOf(lengths),
          dim,
          scale,
        })),
        trust,
      };
    }),
  };
}

function beginning(text) {
  const line = [...splitAtBlanks([...text].slice(0, 1000).join('')).join(' ')]; // characters, not halves of them
  return line.length > 40 ? `${line.slice(0, 40).join('')}…` : line.join('');
}

/** A sentence on what a piece of a letter looks like, if the text has one. */
function noteOnBytes(names) {
  const cut = names.filter((name) => /\\x[0-9a-f]{2}/.test(name)).join('');
  for (const [run] of cut.matchAll(BYTE_RUN)) {
    const bytes = Uint8Array.from(run.slice(2).split('\\x'), (code) => parseInt(code, 16)),
      [letter] = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes).replaceAll('\ufffd', '');
    if (letter)
      return [
        `This model reads some letters byte by byte: ${run.slice(0, 4 * new TextEncoder().encode(letter).length)} is ${letter}.`,
      ];
  }
  return [];
}
