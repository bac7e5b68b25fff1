// Python code that prints what a pane shows: the reading's own lines, and those of the row or column.

/** Lines that run unchanged where the reading's first lines do. */
export function pythonOf({ reading, about, by, at, without }) {
  const { part, layer, heads, join, measure } = about;
  const { setup, weights, values } = reading.code;
  const several = join !== 'one' && heads.length > 1,
    valued = measure === 'value';
  const placed = (text) =>
    text
      .replace(/\bLAYER\b/g, String(layer))
      .replace(/\bPART\b/g, pythonText(part))
      .replace(/\bHEAD\b/g, several ? 'head' : String(heads[0]));
  const shown = `w${by === 'row' ? `[${at}]` : `[:, ${at}]`}`,
    length = by === 'row' ? 'numpy.linalg.norm(v, axis=-1)' : `numpy.linalg.norm(v[${at}])`;
  const one = [placed(weights), ...(valued ? [placed(values)] : [])],
    line = valued ? `${shown} * ${length}` : shown;
  const lines = several
    ? [
        'rows = []',
        `for head in (${heads.join(', ')}):`,
        ...[...one, `rows.append(${line})`].map((text) => `    ${text}`),
        `shown = numpy.${join}(rows, axis=0)`,
      ]
    : [...one, `shown = ${line}`];
  return [
    ...(several || valued ? ['import numpy'] : []),
    ...setup,
    ...lines,
    ...(without && by === 'row' ? ['shown[0] = 0  # without the first'] : []),
    'heaviest = shown.argsort()[::-1][:10]',
    'print(*((int(j), float(shown[j])) for j in heaviest), sep="\\n")',
  ].join('\n');
}

/** A string as Python writes it. */
function pythonText(text) {
  return JSON.stringify(String(text));
}
