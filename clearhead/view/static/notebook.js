// The page inside a notebook: asks the kernel through the frame's parent, follows its theme, tells it the page's height.

const notebook = window.parent === window ? null : window.parent;
const unanswered = new Map();
const notebookListeners = [];
const greeting = notebook && new Promise((done) => addEventListener('message', (event) => reached(event, done)));
let questions = 0;

/** The parent's first message brings the port that all others go through. */
function reached({ source, data, ports }, done) {
  if (source !== notebook || data?.clearhead !== 'port' || !ports[0]) return;
  ports[0].onmessage = ({ data: told }) => heard(told);
  document.documentElement.dataset.framed = '';
  new ResizeObserver(() => ports[0].postMessage({ height: document.body.scrollHeight })).observe(document.body);
  heard(data);
  done(ports[0]);
}

function heard(told) {
  const { id, error, ...answer } = told;
  if (id === undefined) for (const listener of notebookListeners) listener(told);
  else if (error) unanswered.get(id)?.refuse(new Error(error));
  else unanswered.get(id)?.answer(answer);
  unanswered.delete(id);
}

/** Call a function with everything that the notebook says on its own, such as its theme. */
export function onNotebook(listener) {
  notebookListeners.push(listener);
}

/** Tell the notebook something, if there is one around the page. */
export async function tellNotebook(told) {
  (await greeting)?.postMessage(told);
}

/** Ask the kernel: its answer's type and bytes. One that is abandoned before its turn is not computed. */
export async function askNotebook(what, about, signal) {
  const port = await greeting;
  const id = (questions += 1);
  signal?.throwIfAborted();
  return new Promise((answer, refuse) => {
    unanswered.set(id, { answer, refuse });
    signal?.addEventListener('abort', () => {
      if (unanswered.delete(id)) port.postMessage({ drop: id });
      refuse(signal.reason);
    });
    port.postMessage({ id, what, about });
  });
}
