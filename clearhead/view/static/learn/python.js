// Python code that computes what the page shows, alterations included; it runs unchanged.

import { opening } from '../ask.js';
import { html } from '../dom.js';

export function pythonView(state, p) {
  return [
    html.div(
      { class: 'headline' },
      html.h2({ id: 'py' }, 'Same in Python'),
      html.button({ class: 'link', 'data-copy': 'python' }, 'Copy'),
    ),
    html.pre({ tabindex: 0, id: 'python' }, pythonOf(state, p)),
    opening?.note ? html.p({ class: 'note' }, opening.note) : null,
  ];
}

function pythonOf(state, p) {
  const formula = state.formula;
  return [
    'import numpy as np',
    ...operandsOf(state, p),
    `s = ${scoresOf(formula, p)}`,
    ...(formula === 'no-mask' ? [] : [`seen = ${seenOf(p, state.window)}`]),
    ...weightsOf(formula, p),
    `y = ${formula === 'no-values' ? 'w' : `w @ ${formula === 'values=keys' ? keysOf(p) : valuesOf(p)}`}${remark(state, p)}`,
  ].join('\n');
}

const keysOf = (p) => (p.alike ? 'x' : 'k');
const valuesOf = (p) => (p.alike ? 'x' : 'v');

/** The lines that define queries, keys and values. */
function operandsOf(state, p) {
  if (state.learned) {
    const [layer, head] = state.learned.split('.');
    return [
      'from clearhead.model import load',
      'model = load()',
      `of = model.forward(model.tokenizer.encode(${JSON.stringify(state.text)})).layers[${layer}]`,
      `q, k, v = (x[${head}].astype(float) for x in (of.q, of.k, of.v))`,
    ];
  }
  if (p.x[0].length > 8 && p.alike && p.heads === 1) {
    return ['from clearhead.words import load', `x = load().embed(${JSON.stringify(state.text)}).x[:${p.n}]`];
  }
  if (p.alike) return [`x = np.array(${listed(p.q)})`];
  return ['q', 'k', 'v'].map((name) => `${name} = np.array(${listed(p[name])})`);
}

function scoresOf(formula, p) {
  const { scale } = p.shown;
  const product = `${p.alike ? 'x' : 'q'} @ ${formula === 'keys=values' ? valuesOf(p) : keysOf(p)}.T`;
  return scale === 1 ? product : `${product} * ${scale}`;
}

function seenOf(p, window) {
  return `np.tril(np.ones((${p.n}, ${p.n})))${window === null ? '' : ` - np.tri(${p.n}, k=-${window})`}`;
}

function weightsOf(formula, p) {
  const seen = formula === 'no-mask' ? '' : ' * seen';
  const largest = p.shown.rows.some((row) => row.shift) ? ' - s.max(1, keepdims=True)' : '';
  if (formula === 'no-softmax') return ['w = s * seen'];
  if (formula === 'scores-as-weights') return ['w = s * seen', 'w = w / w.sum(1, keepdims=True)'];
  if (formula === 'mask-after-softmax') return [`e = np.exp(s${largest})`, 'w = e / e.sum(1, keepdims=True) * seen'];
  if (largest && seen) {
    return ['s = np.where(seen, s, -np.inf)', `e = np.exp(s${largest})`, 'w = e / e.sum(1, keepdims=True)'];
  }
  return [`e = np.exp(s${largest})${seen}`, 'w = e / e.sum(1, keepdims=True)'];
}

function remark(state, p) {
  if (p.heads > 1) return `   # head ${p.head + 1} of ${p.heads}`;
  if (state.formula !== 'right' || state.window !== null) return '';
  if (p.alike && p.scale === 1) return '   # clearhead.self_attention(x)';
  return state.learned ? '' : `   # clearhead.attention(q, k, v${p.scale === 1 ? ', scale=1.0' : ''})`;
}

function listed(x) {
  return `[${x.map((row) => `[${row.map(String).join(', ')}]`).join(', ')}]`;
}
