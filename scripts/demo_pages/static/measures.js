// The head sheet: each head's picture in small, and the measures that name what it does (clearhead/reading/sheet.py).

import { fourDigits } from './lines.js';

const THUMBNAIL = 28; // pixels
const MOST_POINTS = 40; // of a head's width along the text
const NEAR = 64; // fewer items away than this is near
const MEASURES = [
  'entropy',
  'effective',
  'first',
  'within',
  'distance',
  'off_first',
  'previous',
  'duplicate',
  'induction',
];

/** One head's picture and its measures, means over queries, in one pass over its rows. */
export function measuredHead(of, ids) {
  const { n } = of,
    size = Math.min(THUMBNAIL, n),
    pixels = new Float32Array(size * size),
    own = Object.fromEntries(MEASURES.map((name) => [name, new Float64Array(n)])),
    pixelOf = pixelsOf(n, size);
  for (let i = 0; i < n; i += 1) {
    const row = of.cells(i, 0, i + 1),
      at = pixelOf[i] * size;
    for (let j = 0; j <= i; j += 1) {
      const weight = row[j];
      if (weight > pixels[at + pixelOf[j]]) pixels[at + pixelOf[j]] = weight;
      if (weight) own.entropy[i] -= weight * Math.log(weight);
      if (i - j < NEAR) own.within[i] += weight;
      own.distance[i] += weight * (i - j);
      if (j && weight > own.off_first[i]) own.off_first[i] = weight;
      if (j < i && ids[j] === ids[i]) {
        own.duplicate[i] += weight;
        own.induction[i] += row[j + 1];
      }
    }
    own.effective[i] = Math.exp(own.entropy[i]);
    [own.first[i]] = row;
    own.previous[i] = i ? row[i - 1] : 0;
  }
  const told = Object.fromEntries(MEASURES.map((name) => [name, meanOver(own[name])]));
  if (Math.abs(told.within - 1) < 1e-6) told.within = 1;
  told.off_first = own.off_first.reduce((a, b) => Math.max(a, b), 0);
  return { pixels, size, told: { ...told, spark: alongText(own.effective) } };
}

/** Which pixel each item falls into. */
function pixelsOf(n, size) {
  const found = new Uint16Array(n);
  for (let pixel = 0; pixel < size; pixel += 1)
    found.fill(pixel, Math.floor((pixel * n) / size), Math.floor(((pixel + 1) * n) / size));
  return found;
}

function alongText(x) {
  const size = Math.max(1, Math.ceil(x.length / MOST_POINTS));
  return Array.from({ length: Math.ceil(x.length / size) }, (_, n) =>
    fourDigits(meanOver(x.subarray(n * size, (n + 1) * size))),
  );
}

function meanOver(x) {
  return x.reduce((a, b) => a + b, 0) / x.length;
}
