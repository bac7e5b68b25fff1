// Which keys a query sees: a band of the matrix, from the first to the last allowed difference.

/** The keys that query `row` can see, as [first, end). */
export function seenBy({ sees, keys }, row) {
  const at = row + sees.offset;
  const first = sees.low === null ? 0 : Math.max(0, at + sees.low);
  const end = sees.high === null ? keys : Math.min(keys, at + sees.high + 1);
  return [first, Math.max(first, end)];
}

/** The queries that can see key `column`, as [first, end). */
export function seenFrom({ sees, queries }, column) {
  const at = column - sees.offset;
  const first = sees.high === null ? 0 : Math.max(0, at - sees.high);
  const end = sees.low === null ? queries : Math.min(queries, at - sees.low + 1);
  return [first, Math.max(first, end)];
}

/** Whether a query sees a key, as far as the band tells. */
export function sees(layer, row, column) {
  const [first, end] = seenBy(layer, row);
  return column >= first && column < end;
}

/** Whether any query of `rows` sees any key of `columns`, both [first, end). */
export function seesAny(layer, [top, bottom], [left, right]) {
  if (top >= bottom || left >= right) return false;
  const first = Math.min(seenBy(layer, top)[0], layer.keys - 1),
    end = seenBy(layer, bottom - 1)[1];
  return right > first && left < end;
}

/** About how many pairs of `rows` and `columns` are seen. */
export function countSeen(layer, [top, bottom], [left, right]) {
  const samples = Math.min(16, bottom - top);
  let count = 0;
  for (let k = 0; k < samples; k++) {
    const [first, end] = seenBy(layer, Math.floor(top + ((k + 0.5) * (bottom - top)) / samples));
    count += Math.max(0, Math.min(right, end) - Math.max(left, first));
  }
  return samples ? (count * (bottom - top)) / samples : 0;
}
