// Python code that prints what a pane shows: the reading's own lines, and those of the row or column.

/** Lines that run unchanged where the reading's first lines do. */
export function pythonOf({ reading, about, by, at }) {
  const { part, layer, heads, join } = about;
  const several = join !== 'one' && heads.length > 1;
  const line = by === 'row' ? `[${at}]` : `[:, ${at}]`;
  const lines = reading.python.map((text) =>
    text
      .replace(/\bLAYER\b/g, String(layer))
      .replace(/\bPART\b/g, pythonText(part))
      .replace(/\bHEAD\b/g, several ? 'head' : String(heads[0])),
  );
  const last = lines.pop();
  if (!several) return [...lines, last, `shown = w${line}`, ...printing(about)].join('\n');
  return [
    'import numpy',
    ...lines,
    'rows = []',
    `for head in (${heads.join(', ')}):`,
    `    ${last}`,
    `    rows.append(w${line})`,
    `shown = numpy.${join}(rows, axis=0)`,
    ...printing(about),
  ].join('\n');
}

function printing({ measure }) {
  const remark = measure === 'value' ? ['# the page multiplies each weight by the length of its value'] : [];
  return [
    ...remark,
    'heaviest = shown.argsort()[::-1][:10]',
    'print(*((int(j), float(shown[j])) for j in heaviest), sep="\\n")',
  ];
}

/** A string as Python writes it. */
function pythonText(text) {
  return JSON.stringify(String(text));
}
