// Names of queries and keys, which come in pages, and whole lines of weights.

/** Fills two lists of names as they arrive; `arrived` is called after each page. */
export function makeNames(request, arrived) {
  const known = new Map(); // which text → { names, count, whole }
  let now = null;

  /** The names of one side of a layer; texts of a part with as many items are the same text. */
  function textOf({ reading, part, layer }, side, count) {
    const key = `${reading} ${part} ${side} ${count}`;
    if (!known.has(key)) known.set(key, { names: [], count, done: false, asked: { reading, part, layer, side } });
    return known.get(key);
  }

  async function fill(text, signal) {
    while (!text.done) {
      const from = text.names.length;
      const { names, to, count } = await request('names', { ...text.asked, from }, signal);
      if (text.names.length === from) {
        text.names.push(...names); // another call may have brought them
        text.done = to >= count || !names.length;
      }
      signal.throwIfAborted();
      arrived();
    }
  }

  /** The texts of a layer's keys and queries, which may be the same. */
  function textsOf(about, part, layer) {
    const keys = textOf(about, 'keys', layer.keys);
    const alike = !part.crosses && layer.keys === layer.queries;
    return { keys, queries: alike ? keys : textOf(about, 'queries', layer.queries) };
  }

  return {
    /** Begin with another layer's names; what was known of them is there at once. */
    async load(about, part, layer) {
      const { keys, queries } = textsOf(about, part, layer);
      if (now && now.keys === keys && now.queries === queries) return;
      now?.stop.abort();
      now = { keys, queries, stop: new AbortController() };
      const { signal } = now.stop;
      await Promise.all([...new Set([keys, queries])].map((text) => fill(text, signal)));
    },
    /** A layer's names so far. */
    sides(about, part, layer) {
      const { keys, queries } = textsOf(about, part, layer);
      return { keys: keys.names, queries: queries.names, done: keys.done && queries.done };
    },
  };
}

/** A row or a column with all its values, however many answers they take; `counted` is told how far Python is. */
export async function wholeLine(request, about, signal, counted) {
  let first = await request('line', { ...about, from: 0 }, signal);
  while (!first.values) {
    counted(first.done, first.of);
    first = await request('line', { ...about, from: 0 }, signal);
  }
  if (first.values.length >= first.length) return first;
  const values = new Float32Array(first.length);
  values.set(first.values);
  for (let from = first.values.length; from < first.length;) {
    const next = await request('line', { ...about, from }, signal);
    values.set(next.values, from);
    from += next.values.length;
  }
  return { ...first, values, to: first.length };
}
