// The lines of Python that compute what the page shows; they run as they stand.

import { html } from './dom.js';

export function pythonView(state, p) {
  const text = pythonOf(state, p);
  return [
    html.div(
      { class: 'headline' },
      html.h2({ id: 'py' }, 'Same in Python'),
      html.button({ class: 'link', 'data-copy': 'python' }, 'Copy'),
    ),
    html.pre({ tabindex: 0, id: 'python' }, text),
  ];
}

export function pythonOf(state, p) {
  if (state.learned) return ofModel(state);
  if (p.x[0].length > 8) return ofSentence(state, p);
  if (state.formula !== 'right' || p.heads > 1) return ofExplain(state, p);
  if (p.alike && p.scale === 1 && state.window === null) {
    return `import numpy as np\nx = np.array(${matrix(p.x)})\ne = np.tril(np.exp(x @ x.T))\nw = e / e.sum(1, keepdims=True)\ny = w @ x   # clearhead.self_attention(x)`;
  }
  const mask = state.window === null ? '' : `, mask=clearhead.window(${state.window - 1})`;
  const arrays = p.alike
    ? [`q = k = v = np.array(${matrix(p.x)})`]
    : ['q', 'k', 'v'].map((name) => `${name} = np.array(${matrix(p[name])})`);
  return [
    'import numpy as np, clearhead',
    ...arrays,
    `y = clearhead.attention(q, k, v, scale=${p.scale}${mask})`,
    `w = clearhead.weights(q, k, scale=${p.scale}${mask})`,
  ].join('\n');
}

function ofModel(state) {
  const [layer, head] = state.learned.split('.');
  return `from clearhead.model import load\nmodel = load()\ndone = model.forward(model.tokenizer.encode(${JSON.stringify(state.text)}))\nw = done.layers[${layer}].weights[${head}]   # any row, any length\nchances = done.logits[-1]`;
}

function ofSentence(state, p) {
  return `from clearhead.explain import explain\ne = explain(${JSON.stringify(state.text)}, position=${p.row})\ne.scores, e.weights, e.output\nprint(e)   # every step`;
}

function ofExplain(state, p) {
  const cut = p.heads > 1 ? `   # head ${p.head + 1} of ${p.heads}: its own numbers of each item` : '';
  return `from clearhead.explain import explain\nq, k, v = ${matrix(p.q)}, ${matrix(p.k)}, ${matrix(p.v)}${cut}\ne = explain(q, position=${p.row}, keys=k, values=v, scale=${p.scale})\ne.weights, e.output   # clearhead explain --what-if alters the formula`;
}

function matrix(x) {
  return `[${x.map((row) => `[${row.map(String).join(', ')}]`).join(', ')}]`;
}
