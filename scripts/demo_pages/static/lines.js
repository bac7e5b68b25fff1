// One row or column in numbers, as clearhead/reading/lines.py describes it.

const MOST_HEAVY = 200;
const MOST_BINS = 400;
const CARRIED = [50, 90, 99]; // per cent

/** What is said about a row or column: its sum, its heaviest items, the fewest that carry so much, its bins. */
export function describedLine(values, by, at, without) {
  const first = by === 'row' ? values[0] : null;
  const x = without && by === 'row' ? Float32Array.from(values, (value, j) => (j ? value : 0)) : values;
  const order = heaviestOrder(x),
    running = new Float64Array(x.length);
  order.forEach((j, n) => {
    running[n] = (n ? running[n - 1] : 0) + x[j];
  });
  const total = running.at(-1) ?? 0,
    listed = [...order.subarray(0, MOST_HEAVY)].filter((j) => x[j] > 0),
    share = (n) => (total ? running[n] / total : running[n]),
    others = x.reduce((count, value) => count + (value !== 0), 0) - listed.length;
  return {
    at,
    by,
    length: x.length,
    seen: seenSpan(values),
    sum: values.reduce((sum, value) => sum + value, 0),
    first,
    carriers: Object.fromEntries(CARRIED.map((goal) => [goal, carriersOf(running, total, goal / 100)])),
    top: listed.map((j, n) => [j, x[j], share(n)]),
    rest: { count: others, share: others ? Math.max(0, 1 - share(listed.length - 1)) : 0 },
    bins: binsOf(x),
  };
}

/** Four digits, for a drawing. */
export function fourDigits(value) {
  return Number(value.toPrecision(4));
}

/** Indices, the heaviest first; of equals, the earlier one. */
function heaviestOrder(x) {
  return Uint32Array.from(x.keys()).sort((a, b) => x[b] - x[a] || a - b);
}

function seenSpan(values) {
  const first = values.findIndex((value) => value !== 0);
  return first < 0 ? [0, 0] : [first, values.findLastIndex((value) => value !== 0) + 1];
}

function carriersOf(running, total, goal) {
  return total ? running.findIndex((value) => value >= goal * total * (1 - 1e-6)) + 1 : 0;
}

function binsOf(x) {
  const size = Math.max(1, Math.ceil(x.length / MOST_BINS)),
    parts = Array.from({ length: Math.ceil(x.length / size) }, (_, n) => x.subarray(n * size, (n + 1) * size));
  const sumOf = (part) => part.reduce((a, b) => a + b, 0);
  return {
    max: parts.map((part) => fourDigits(part.reduce((a, b) => Math.max(a, b)))),
    mean: parts.map((part) => fourDigits(sumOf(part) / part.length)),
  };
}
