// The widget: one of the page's screens in a frame that sees nothing of the notebook, and messages between it and the
// kernel. The kernel has one question at a time, so that those given up before their turn are never computed.

const PATIENCE = 4000; // ms until the kernel must have begun to answer
const GREETING = 800; // ms until the page opens without a kernel; with one, as soon as it answers
const LEAST_HIGH = 120,
  MOST_HIGH = 6000; // pixels
const SILENT = 'No kernel answers: it is busy, or not running. Wait for it, or run this cell again.';

export default {
  async render({ model, el }) {
    const frame = document.createElement('iframe');
    frame.title = model.get('title');
    frame.sandbox = 'allow-scripts allow-downloads';
    frame.allow = 'clipboard-write';
    frame.style.cssText = `display: block; width: 100%; height: ${model.get('height') || 640}px; border: 0`;
    const stop = new AbortController();
    const kernel = makeKernel(model);
    const shown = { state: null }; // as the page tells it
    frame.addEventListener('load', () => connect(frame, shown, model, kernel, stop.signal));
    el.append(frame);
    const here = kernel.greet();
    const soon = await Promise.race([here, new Promise((done) => setTimeout(done, GREETING, false))]);
    const open = async (live) => (frame.srcdoc = await pageOf(model, live, shown.state));
    await open(soon);
    if (!soon) here.then(open);
    return () => {
      stop.abort();
      kernel.stop();
    };
  },
};

/** The page with what it keeps, as data that cannot end its element; `live`: it may ask the kernel for more. */
async function pageOf(model, live, state) {
  const shared = await model.widget_manager.get_model(model.get('page'));
  const [text, kept] = await Promise.all([inflated(shared.get('packed')), inflated(model.get('kept'))]);
  const told = JSON.parse(kept);
  const data = JSON.stringify({ ...told, state: state ?? told.state, framed: true, live }).replaceAll('<', '\\u003c');
  return text.replace('<script>', () => `<script type="application/json" id="kept">${data}</script>\n<script>`);
}

/** A text from its deflated bytes. */
async function inflated(bytes) {
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(plain).text();
}

/** Give the page a port: it asks through it and tells its height, and is told the theme. */
function connect(frame, shown, model, kernel, signal) {
  const { port1: port, port2 } = new MessageChannel();
  port.onmessage = ({ data }) => {
    if (data.what) kernel.ask(data, port);
    if (data.state !== undefined) shown.state = data.state;
    if (data.drop) kernel.drop(data.drop, port);
    if (data.height && !model.get('height'))
      frame.style.height = `${Math.min(MOST_HIGH, Math.max(LEAST_HIGH, Math.ceil(data.height)))}px`;
  };
  frame.contentWindow.postMessage({ clearhead: 'port', theme: themeAround(frame) }, '*', [port2]);
  followTheme((theme) => port.postMessage({ theme }), frame, signal);
}

/** The kernel's side: questions wait here until it has answered the one before. */
function makeKernel(model) {
  const mine = Math.random().toString(36).slice(2); // this view's, for the kernel's answers reach all views
  const queue = [];
  let current = null;
  let count = 0;
  let greeted = null;

  function next() {
    if (current || !queue.length) return;
    current = queue.shift();
    count += 1;
    current.number = `${mine}/${count}`;
    current.patience = setTimeout(() => done(current, { error: SILENT }), PATIENCE);
    model.send({ ask: current.number, what: current.question.what, about: current.question.about });
  }

  function done(entry, told, bytes) {
    if (entry !== current) return;
    clearTimeout(entry.patience);
    current = null;
    const body = bytes && new Uint8Array(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength).slice().buffer;
    entry.port.postMessage({ ...told, id: entry.question.id, body }, body ? [body] : []);
    next();
  }

  function heard({ here, begun, answered, ...told }, buffers) {
    if (here === mine) greeted?.(true);
    if (current && begun === current.number) clearTimeout(current.patience);
    if (current && answered === current.number) done(current, told, buffers?.[0]);
  }

  model.on('msg:custom', heard);
  return {
    /** Whether there is a kernel; without one, never. */
    greet() {
      model.send({ greet: mine });
      return new Promise((done) => (greeted = done));
    },
    ask(question, port) {
      queue.push({ question, port });
      next();
    },
    drop(id, port) {
      const at = queue.findIndex((entry) => entry.port === port && entry.question.id === id);
      if (at >= 0) queue.splice(at, 1);
    },
    stop() {
      model.off('msg:custom', heard);
      clearTimeout(current?.patience);
    },
  };
}

/** Light or dark, as the nearest background behind an element is; null if there is none. */
function themeAround(element) {
  const context = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  for (let at = element; at; at = at.parentElement ?? at.getRootNode().host) {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = getComputedStyle(at).backgroundColor;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, opaque] = context.getImageData(0, 0, 1, 1).data;
    if (opaque > 127) return 0.299 * r + 0.587 * g + 0.114 * b < 128 ? 'dark' : 'light';
  }
  return null;
}

/** Tell whenever the theme around an element changes. */
function followTheme(tell, element, signal) {
  let last = themeAround(element);
  const look = () => {
    const now = themeAround(element);
    if (now !== last) tell(now);
    last = now;
  };
  const soon = () => [50, 500].forEach((wait) => setTimeout(look, wait)); // style sheets follow the change of a name
  const observer = new MutationObserver(soon);
  for (const root of [document.documentElement, document.body]) observer.observe(root, { attributes: true });
  signal.addEventListener('abort', () => observer.disconnect());
}
