// Answers from Python, cached by request; where requests overlap, only the answer to the last one is used.

/* global KEPT */
const kept = typeof KEPT === 'undefined' ? null : KEPT; // what a page saved as one file has been told
const known = new Map(Object.entries(kept?.known ?? {}));
const running = new Map();

export const alone = kept !== null;
export const openedAt = kept?.state ?? null;

/** Send a request; an earlier one of the same kind that is still pending is abandoned. */
export async function ask(what, about) {
  const name = nameOf(what, about);
  if (known.has(name)) return known.get(name);
  if (alone) throw new Error('This page is a file: type numbers, or run clearhead view for new sentences.');
  running.get(what)?.abort();
  const stop = new AbortController();
  running.set(what, stop);
  const reply = await fetch(`ask/${what}`, {
    method: 'POST',
    body: JSON.stringify(about),
    headers: { 'Content-Type': 'application/json' },
    signal: stop.signal,
  });
  const found = await reply.json();
  if (found.error) throw new Refused(found.error);
  if (known.size > 200) known.delete(known.keys().next().value);
  known.set(name, found);
  return found;
}

/** An error from Python, with its reason. */
export class Refused extends Error {}

/** All answers so far, for a page without a server. */
export function answers() {
  return Object.fromEntries(known);
}

function nameOf(what, about) {
  return `${what} ${JSON.stringify(about)}`;
}
