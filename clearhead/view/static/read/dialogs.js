// What opens over the page: help, another text to read, and code that could not be copied.

import { html } from '../dom.js';

const HELP = [
  ['← →', 'the token before or after'],
  ['↑ ↓', 'the token above or below'],
  ['Home End', 'the first or the last token'],
  ['PgUp PgDn', 'a tenth of the text'],
  ['Shift with these', 'the other token of the pair'],
  ['Enter, Esc', 'lock a token; let it go, and the pointer leads'],
  ['[ ]', 'the layer before or after'],
  [', .', 'the head before or after'],
  ['Ctrl or Shift click', 'add heads; on a token, Shift pairs it with the chosen one'],
  ['/', 'find words, or a token by its number'],
  ['#833', 'in Find: token 833; Enter chooses it, and Enter again the next match'],
  ['+ − 0', 'on the map: larger, smaller, whole; arrows point, Enter chooses'],
  ['Ctrl Z, Ctrl Shift Z', 'undo, redo'],
  ['?', 'this list'],
];

/** A dialog that is removed once it is closed. */
function openDialog(title, ...content) {
  const close = html.button({ class: 'quiet', value: 'close', type: 'button' }, 'Close ', html.kbd(null, 'Esc'));
  const dialog = html.dialog(
    { 'aria-label': title },
    html.div({ class: 'headline' }, html.h2(null, title), close),
    ...content,
  );
  close.addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', () => dialog.remove());
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** The keys, and how colours are to be read. */
export function openHelp() {
  openDialog(
    'Keys',
    html.dl(
      { class: 'keys' },
      HELP.map(([keys, does]) => [html.dt(null, keys), html.dd(null, does)]),
    ),
    html.p(
      { class: 'cap' },
      'Every colour stands for a number that can be had: in the caption below the text, in the list, and in the table ',
      'below the map. ',
      'In the strip beside the text, the wide part is the heaviest of each stretch, the narrow part its mean.',
    ),
  );
}

/** Ask for another text; `read` reads it, and fails with a reason. */
export function openAgain(read) {
  const field = html.textarea({ rows: 6, 'aria-label': 'Text', spellcheck: 'false', class: 'word' }),
    start = html.button({ class: 'main', type: 'submit' }, 'Read it ', html.kbd(null, 'Ctrl ⏎')),
    said = html.p({ class: 'cap', role: 'status' });
  const form = html.form({ class: 'again' }, field, html.div({ class: 'headline' }, said, start));
  const dialog = openDialog('Read another text', form);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    start.disabled = true;
    said.textContent = 'The model reads.';
    try {
      await read(field.value);
      dialog.close();
    } catch (error) {
      said.textContent = error.message;
      start.disabled = false;
    }
  });
  field.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !start.disabled) form.requestSubmit();
  });
  field.focus();
}

/** Code to be copied by hand, where the browser does not let the page. */
export function openCode(code) {
  const field = html.textarea({ rows: 12, readonly: true, class: 'mono', 'aria-label': 'Python' }, code);
  openDialog('Copy as Python', field);
  field.select();
}
