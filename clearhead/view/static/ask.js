// Answers: cached by request, kept in a page that is a file, asked of the server, of a notebook's kernel, or of the page
// itself, where it stands on its own.

import { askNotebook, tellNotebook } from './notebook.js';

const kept = JSON.parse(document.getElementById('kept')?.textContent ?? 'null'); // what a page saved as one file has been told
const known = new Map(Object.entries(kept?.known ?? {}).map(([name, told]) => [name, unpacked(told)]));
const running = new Map();
let answerer = kept ? fromNotebook : fromServer;
const MOST_KNOWN = 1000;
const MOST_BYTES = 1 << 25; // of numbers
let bytes = 0;

export const alone = kept !== null && !kept.live; // nobody to ask
export const screens = kept ? (kept.screens ?? null) : { Learn: './', Read: 'read' }; // where each is
export const opening = kept?.opening ?? null; // what a page that answers by itself reads first
export const writes = !alone && !kept?.screens; // whether somebody can write the page as one file
const LACKING = kept?.framed
  ? 'No kernel answers, and that was not kept: run this cell again, or wait until the kernel is free.'
  : 'This page is a file, and does not hold that. Choose what it shows, or run clearhead view for new sentences.';
export const openedAt = kept?.state ?? null; // for a page whose address does not hold its state

/** Keep the state, as an address: in the page's own, or with the notebook around it. */
export function keepAddress(state) {
  if (openedAt === null) history.replaceState(null, '', `#${state}`);
  else tellNotebook({ state });
}

/** Let a function answer from now on: `own(what, about, signal)`, as the server would, or it throws Refused. */
export function answerWith(own) {
  answerer = own;
}

/** Send a request; an earlier one of the same kind that is still pending is abandoned. */
export async function ask(what, about) {
  if (!known.has(nameOf(what, about))) running.get(what)?.abort();
  const stop = new AbortController();
  running.set(what, stop);
  return request(what, about, stop.signal);
}

/** Send a request that `signal` can cancel. An answer with numbers has them in `values`, a Float32Array. */
export async function request(what, about, signal) {
  const name = nameOf(what, about);
  if (known.has(name)) return toldOrRefused(known.get(name));
  if (alone) throw new Refused(LACKING);
  const found = toldOrRefused(await answerer(what, about, signal));
  if (found.done === undefined) keep(name, found); // an answer that is under way is asked for again
  return found;
}

/** An answer, unless it is a reason why there is none. */
function toldOrRefused(found) {
  if (found.error) throw new Refused(found.error);
  return found;
}

/** The page as one file that holds some answers, by the names of their questions. */
export async function asFile(screen, state, told) {
  const { type, body } = await (kept ? notebookReply : serverReply)('file', { screen, known: told, state });
  if (type !== 'text/html') throw new Refused(new TextDecoder().decode(body));
  return new Blob([body], { type });
}

async function fromServer(what, about, signal) {
  return decoded(await serverReply(`ask/${what}`, about, signal));
}

async function fromNotebook(what, about, signal) {
  return decoded(await notebookReply(`ask/${what}`, about, signal));
}

/** Ask the server: the type and the bytes of its reply. */
async function serverReply(path, about, signal) {
  const headers = { 'Content-Type': 'application/json' };
  const reply = await fetch(path, { method: 'POST', body: JSON.stringify(about), headers, signal });
  return { type: reply.headers.get('Content-Type').split(';')[0], body: await reply.arrayBuffer() };
}

/** Ask a notebook's kernel. */
async function notebookReply(path, about, signal) {
  try {
    return await askNotebook(path, about, signal);
  } catch (error) {
    throw signal?.aborted ? error : new Refused(error.message);
  }
}

/** Keep an answer, and forget the oldest ones if there are too many. */
function keep(name, found) {
  bytes += (found.values?.byteLength ?? 0) - (known.get(name)?.values?.byteLength ?? 0);
  known.set(name, found);
  for (const [oldest, { values }] of known) {
    if (known.size <= MOST_KNOWN && bytes <= MOST_BYTES) return;
    bytes -= values?.byteLength ?? 0;
    known.delete(oldest);
  }
}

/** An error from Python, with its reason. */
export class Refused extends Error {}

/** All answers so far, for a page without a server. */
export function answers() {
  return packedAnswers(answered(() => true));
}

/** The answers so far that `wanted(what, about)` chooses: [what, about, answer]. */
export function answered(wanted) {
  const found = [];
  for (const [name, told] of known) {
    const cut = name.indexOf(' ');
    const [what, about] = [name.slice(0, cut), JSON.parse(name.slice(cut + 1))];
    if (wanted(what, about)) found.push([what, about, told]);
  }
  return found;
}

/** Questions with their answers, [what, about, answer], as a page without a server holds them. */
export function packedAnswers(told) {
  return Object.fromEntries(told.map(([what, about, found]) => [nameOf(what, about), packed(found)]));
}

/** The name of a request, which does not depend on the order of its fields. */
function nameOf(what, about) {
  return `${what} ${JSON.stringify(about, Object.keys(about).sort())}`;
}

/** An answer with or without numbers. */
function decoded({ type, body }) {
  return type === 'application/octet-stream' ? withValues(body) : JSON.parse(new TextDecoder().decode(body));
}

/** An answer of numbers: the length of its JSON in four bytes, the JSON, and float32 numbers. */
function withValues(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return { ...head, values: new Float32Array(buffer, 4 + length) };
}

/** An answer as JSON: numbers in base64. */
function packed(found) {
  if (!found.values) return found;
  const bytes = new Uint8Array(found.values.buffer, found.values.byteOffset, found.values.byteLength);
  let text = '';
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return { ...found, values: btoa(text) };
}

function unpacked(told) {
  if (typeof told?.values !== 'string') return told;
  const text = atob(told.values);
  return { ...told, values: new Float32Array(Uint8Array.from(text, (c) => c.charCodeAt(0)).buffer) };
}
