// Elements as values, and a page brought to look like them: what stays keeps its focus, its caret and its scroll.

const SPACES = { svg: 'http://www.w3.org/2000/svg', math: 'http://www.w3.org/1998/Math/MathML' };

/** A maker of elements: html.p({ class: 'note' }, 'text', child). Styles are set property by property, as the content
 * security policy asks. */
function maker(space) {
  return new Proxy({}, { get: (_, tag) => (props, ...children) => {
    const made = space ? document.createElementNS(SPACES[space], tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(props ?? {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name === 'style') for (const [key, to] of Object.entries(value)) made.style.setProperty(key, to);
      else made.setAttribute(name, value === true ? '' : value);
    }
    made.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
    return made;
  } });
}

export const html = maker('');
export const svg = maker('svg');
export const math = maker('math');

/** Make an element's children those given. */
export function draw(parent, ...children) {
  const next = children.flat(9).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (typeof child === 'string' ? document.createTextNode(child) : child));
  sync(parent, next);
}

function sync(parent, next) {
  const now = [...parent.childNodes];
  next.forEach((child, at) => {
    if (at < now.length) morph(now[at], child);
    else parent.append(child);
  });
  for (const extra of now.slice(next.length)) extra.remove();
}

/** Bring an element to what another is; another kind or key replaces it. */
function morph(now, next) {
  if (now.nodeName !== next.nodeName || now.dataset?.key !== next.dataset?.key) return now.replaceWith(next);
  if (now.nodeType === Node.TEXT_NODE) {
    if (now.data !== next.data) now.data = next.data;
    return undefined;
  }
  for (const { name } of [...now.attributes]) {
    if (name !== 'style' && name !== 'open' && !next.hasAttribute(name)) now.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (name !== 'style' && now.getAttribute(name) !== value) now.setAttribute(name, value);
  }
  if (now.style && now.style.cssText !== next.style.cssText) now.style.cssText = next.style.cssText;
  if (now.nodeName === 'INPUT' && now !== document.activeElement) now.value = next.getAttribute('value') ?? '';
  if (now.nodeName === 'TEXTAREA' && now !== document.activeElement) now.value = next.textContent;
  else sync(now, [...next.childNodes]);
  return undefined;
}
