// Whether the picture is what the model used: four facts, computed, and what a weight does not say.

import { draw, html } from '../dom.js';
import { whole } from '../numbers.js';
import { bound, unitOf } from './wording.js';

/** The line under a pane; `host.measure` is told whether weights count times the length of the values. */
export function makeTrust(host) {
  const element = html.footer({ class: 'trust', 'aria-label': 'Checks' });
  element.addEventListener('click', (event) => {
    const measure = event.target.closest('[data-measure]')?.dataset.measure;
    if (measure) host.measure(measure);
  });
  return {
    element,
    /** `told`: what Python says of the layer, or null as long as it has not been asked. */
    update(view, told) {
      draw(element, factsOf(view, told), cautionOf(view));
    },
  };
}

function factsOf(view, told) {
  const facts = [];
  if (told?.failed) {
    facts.push(html.span({ class: 'bad' }, 'Not what the model used'), html.span(null, told.said));
    return facts;
  }
  const { edits } = view.layer;
  if (edits.length) facts.push(html.span({ class: 'edited' }, `As interventions left it: ${edits.join(', ')}`));
  if (told?.checked) facts.push(html.span({ class: 'ok' }, 'Checked'));
  else if (told) facts.push(html.span(null, `Not checked: ${told.said || 'there is no output to compare with'}`));
  if (!told) facts.push(html.span(null, 'Not checked yet'));
  facts.push(sumOf(view), seenOf(view));
  if (told?.checked) {
    const rows = told.rows < view.layer.queries ? `, in ${whole(told.rows)} rows` : '';
    facts.push(html.span(null, `output differs from the model’s by ${bound(told.difference)} at most${rows}`));
  }
  if (told?.checked && told.said) facts.push(html.span(null, told.said));
  return facts.filter(Boolean);
}

/** The sum of the shown row: of one head, or the mean of several. */
function sumOf({ by, line, about, layer }) {
  if (!line || (!line.sum && layer.edits.length) || by === 'column' || about.measure === 'value' || (about.join === 'max' && about.heads.length > 1))
    return null;
  return html.span(null, `this row sums to 1 ± ${bound(Math.abs(line.sum - 1))}`);
}

/** What hides keys, and whether hidden ones have a weight of exactly 0. */
function seenOf(view) {
  const { low, high, other, offset } = view.layer.sees,
    unit = unitOf(view);
  if (low === null && high === null && !other) return html.span(null, `no mask: every ${unit} may be seen`);
  if (!view.line || view.by === 'column') return null;
  const { values } = view.line,
    last = high === null ? values.length : view.row + offset + high + 1,
    first = low === null ? 0 : Math.max(0, view.row + offset + low);
  const hidden = [...values.subarray(0, first), ...values.subarray(Math.max(0, last))];
  const word = high === 0 && low === null ? 'later tokens' : 'hidden tokens';
  if (other && !hidden.length) return html.span(null, 'a mask of its own');
  if (!hidden.length) return html.span(null, 'nothing comes later');
  return html.span(null, hidden.every((weight) => weight === 0) ? `${word}: exactly 0` : `${word}: not 0`);
}

/** What a weight does not say, and the measure that says more, or why it is not to be had. */
function cautionOf({ about, part }) {
  const value = about.measure === 'value';
  return html.span(
    { class: 'warn' },
    value ? 'A weight times the length of its value. ' : 'A weight is not an importance. ',
    html.button(
      { class: 'link', 'data-measure': value ? 'weight' : 'value', disabled: !part.values },
      value ? 'Weights alone' : 'Times the value’s length',
    ),
    part.values ? null : ': no values were kept',
  );
}
