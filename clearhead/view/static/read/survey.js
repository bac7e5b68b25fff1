// Asks for all heads of a part: layer by layer, or head by head where one takes long, so that stopping is quick.

import { Refused } from '../ask.js';

const SECONDS = 0.6; // for a head over a square of 32,768 tokens
const AT_ONCE = 1; // seconds that one request may take
const UNASKED = 3; // seconds that all may take without a click

/** How long all heads of a part, or those of one layer, take, in seconds. */
export function costOf(layers) {
  const pairs = layers.reduce((sum, { heads, queries, keys }) => sum + heads.length * queries * keys, 0);
  return (SECONDS * pairs) / 32768 ** 2;
}

/** Heads as they become known. `changed` is called after each answer. */
export function makeSurvey({ request, alone, changed }) {
  const found = new Map(); // of each part that was looked at, what is known
  let now = null,
    stopping = null;

  /** Turn to a part of a reading, and tell whether it is another one. */
  function turn({ reading, part }, layers) {
    const name = `${reading} ${part}`;
    if (now?.name === name) return false;
    stop();
    if (!found.has(name)) found.set(name, fresh(name, { reading, part }, layers));
    now = found.get(name);
    return true;
  }

  /** Ask for what is not known yet, from one layer on and then around. */
  async function start(from) {
    if (stopping || now.state === 'done') return;
    const of = now;
    stopping = new AbortController();
    const { signal } = stopping;
    of.state = 'running';
    of.error = '';
    changed();
    try {
      for (const layer of turned(of.layers, from)) await askLayer(of, layer, signal);
      of.state = 'done';
    } catch (error) {
      of.state = signal.aborted ? 'stopped' : 'failed';
      if (!signal.aborted) of.error = 'The server on this computer no longer answers.';
    }
    if (stopping?.signal === signal) stopping = null;
    changed();
  }

  /** Stop asking; true if something was under way. */
  function stop() {
    const running = Boolean(stopping);
    stopping?.abort();
    stopping = null;
    return running;
  }

  async function askLayer(of, layer, signal) {
    const single = layer.heads.map((head) => [head]);
    if (!alone && costOf([layer]) > AT_ONCE) {
      for (const heads of single) await askHeads(of, layer, heads, signal);
    } else if (!(await askHeads(of, layer, layer.heads, signal)) && alone) {
      for (const heads of single) await askHeads(of, layer, heads, signal); // as a file may hold them
    }
  }

  /** Some heads of one layer; false if Python has a reason not to tell. */
  async function askHeads(of, layer, heads, signal) {
    if (heads.every((head) => of.heads.has(`${layer.number}.${head}`))) return true;
    let told;
    try {
      told = await request('sheet', { ...of.about, layer: layer.number, heads }, signal);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      of.refused.set(layer.number, error.message);
      return false;
    }
    signal.throwIfAborted();
    of.refused.delete(layer.number);
    const [height, width] = told.size,
      size = height * width;
    told.heads.forEach((head, at) => {
      const pixels = told.values.subarray(at * size, (at + 1) * size);
      of.heads.set(`${layer.number}.${head.head}`, { ...head, layer: layer.number, height, width, pixels });
    });
    changed();
    return true;
  }

  return { turn, start, stop, known: () => now };
}

function fresh(name, about, layers) {
  const total = layers.reduce((sum, { heads }) => sum + heads.length, 0);
  return {
    name,
    about,
    layers,
    total,
    heads: new Map(),
    refused: new Map(), // why, for each layer that is not told
    state: costOf(layers) > UNASKED ? 'waiting' : 'ready',
    error: '',
  };
}

/** Layers from one on, then those before it. */
function turned(layers, from) {
  const at = Math.max(
    0,
    layers.findIndex(({ number }) => number === from),
  );
  return [...layers.slice(at), ...layers.slice(0, at)];
}

/** A time in words. */
export function durationOf(seconds) {
  if (seconds < 1) return 'under a second';
  if (seconds < 90) return `about ${Math.round(seconds)} s`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min`;
  return `about ${Math.round(seconds / 3600)} h`;
}
