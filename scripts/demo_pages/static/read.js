// Answers of the Read screen, computed in the page, as clearhead/reading/answers.py gives them.

import { answerWith, opening, Refused } from './ask.js';
import { makeSelected } from './heads.js';
import { describedLine } from './lines.js';
import { measuredHead } from './measures.js';
import { pooledStrip } from './pooled.js';
import { recordedReading, smallReading } from './recordings.js';

const MOST_HEAVIEST = 40;
const MOST_READINGS = 32;
const readingsHere = [];

const READ_ANSWERS = {
  readings: async () => {
    if (!readingsHere.length) readingsHere.push(await firstReading(opening));
    return allDescribed();
  },
  names: ({ reading, from }) => {
    const { names } = readingsHere[reading];
    return { names: names.slice(from), to: names.length, count: names.length };
  },
  line: ({ by, at, without = false, from = 0, ...about }) => {
    const of = chosenHeads(about),
      values = by === 'row' ? of.cells(at) : of.column(at);
    return { ...describedLine(values, by, at, without), from, to: values.length, values: values.subarray(from) };
  },
  tile: ({ how, z, r, c, from, to, ...about }) => pooledStrip(chosenHeads(about), how, { z, r, c, from, to }),
  sheet: ({ reading, layer, heads }) => {
    const found = heads.map((head) => ({
      head,
      ...measuredHead(chosenHeads({ reading, layer, heads: [head], join: 'one' }), readingsHere[reading].ids),
    }));
    const values = new Float32Array(found.reduce((count, { pixels }) => count + pixels.length, 0));
    found.forEach(({ pixels }, n) => values.set(pixels, n * pixels.length));
    return { size: [found[0].size, found[0].size], heads: found.map(({ head, told }) => ({ head, ...told })), values };
  },
  pair: ({ reading, row, column }) => {
    const heads = everyHead(reading).map(([layer, head, of]) => [layer, head, of.cells(row, column, column + 1)[0]]);
    return { heads: heads.sort((a, b) => b[2] - a[2]), count: heads.length };
  },
  heaviest: ({ reading, by, at }) => {
    const found = everyHead(reading).flatMap(([layer, head, of]) =>
      Array.from(by === 'row' ? of.cells(at) : of.column(at), (weight, other) => [
        layer,
        head,
        ...(by === 'row' ? [at, other] : [other, at]),
        weight,
      ]),
    );
    return {
      found: found
        .filter((one) => one[4] > 0)
        .sort((a, b) => b[4] - a[4])
        .slice(0, MOST_HEAVIEST),
    };
  },
  trust: ({ reading, layer }) => layerNumbered(reading, layer).trust,
  again: async ({ text }) => {
    if (readingsHere.length >= MOST_READINGS)
      throw new Refused(`${MOST_READINGS} texts are open already: load the page again.`);
    readingsHere.push(await smallReading(text));
    return { reading: readingsHere.length - 1, readings: allDescribed().readings };
  },
};

answerWith(async (what, about, signal) => {
  await new Promise((turn) => setTimeout(turn)); // so that what is known is drawn first
  signal?.throwIfAborted();
  return READ_ANSWERS[what](about);
});

async function firstReading({ recording, text, note }) {
  const found = await (recording ? recordedReading(recording) : smallReading(text));
  if (note) found.described.notes.unshift(note);
  return found;
}

function allDescribed() {
  return { readings: readingsHere.map(({ described }) => described), chosen: 0 };
}

function partOfReading(reading) {
  return readingsHere[reading].described.parts[0];
}

function layerNumbered(reading, layer) {
  return readingsHere[reading].layers[partOfReading(reading).layers.findIndex(({ number }) => number === layer)];
}

/** The heads that a question is about, as one matrix. */
function chosenHeads({ reading, layer, heads, join, measure }) {
  const numbers = partOfReading(reading).layers.find(({ number }) => number === layer).heads,
    own = layerNumbered(reading, layer).heads;
  const asked = join === 'one' ? heads.slice(0, 1) : [...new Set(heads)];
  return makeSelected(
    asked.map((head) => own[numbers.indexOf(head)]),
    join,
    measure === 'value',
  );
}

/** Each head of a reading as a matrix: [layer, head, matrix]. */
function everyHead(reading) {
  return partOfReading(reading).layers.flatMap(({ number, heads }) =>
    heads.map((head) => [number, head, chosenHeads({ reading, layer: number, heads: [head], join: 'one' })]),
  );
}
