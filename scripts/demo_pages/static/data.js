// Data files: each is a script that leaves its contents behind, because a page from disk may fetch nothing.

import { Refused } from './ask.js';

const dataFiles = new Map(); // by name: { done, promise }

for (const kind of ['load', 'error']) document.addEventListener(kind, ({ target }) => ended(target, kind), true);

function fileCalled(name) {
  if (!dataFiles.has(name)) {
    const file = {};
    file.promise = new Promise((done) => {
      file.done = done;
    });
    dataFiles.set(name, file);
  }
  return dataFiles.get(name);
}

function ended(script, kind) {
  if (script.dataset?.file) fileCalled(script.dataset.file).done(kind);
}

/** What a data file holds, once it is here. Throws Refused if it does not come. */
export async function dataOf(name) {
  if (!self.clearheadData?.[name]) await fileCalled(name).promise;
  const found = self.clearheadData?.[name];
  if (!found)
    throw new Refused(`The file ${name}.js has not come: load the page again, with all its files in one folder.`);
  return found;
}

/** Bytes in base64. */
export function bytesOf(text) {
  const plain = atob(text),
    bytes = new Uint8Array(plain.length);
  for (let at = 0; at < plain.length; at += 1) bytes[at] = plain.charCodeAt(at);
  return bytes;
}

/** Numbers of 16 bits in base64, as floats that hold them exactly. */
export function halvesOf(text) {
  return Float32Array.from(new Uint16Array(bytesOf(text).buffer), halfAsFloat);
}

/** Numbers of 32 bits in base64. */
export function floatsOf(text) {
  return new Float32Array(bytesOf(text).buffer);
}

function halfAsFloat(bits) {
  const exponent = (bits >> 10) & 31,
    fraction = bits & 1023,
    sign = bits >> 15 ? -1 : 1;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

/** Rows of whole numbers times a scale each. */
export function dequantized(rows, scales) {
  const whole = new Int8Array(bytesOf(rows).buffer),
    factors = halvesOf(scales),
    width = whole.length / factors.length,
    found = new Float32Array(whole.length);
  for (let row = 0, at = 0; row < factors.length; row += 1)
    for (let end = at + width; at < end; at += 1) found[at] = whole[at] * factors[row];
  return { rows: factors.length, width, values: found };
}
