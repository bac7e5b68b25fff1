// Elements as values, and a page updated to match them; an element that stays keeps its focus, caret and scroll.

const SPACES = { svg: 'http://www.w3.org/2000/svg', math: 'http://www.w3.org/1998/Math/MathML' };

/** Makes elements: html.p({ class: 'note' }, 'text', child). Styles are set property by property, as the content
 * security policy requires. */
function maker(space) {
  return new Proxy(
    {},
    {
      get:
        (_, tag) =>
        (props, ...children) => {
          const made = space ? document.createElementNS(SPACES[space], tag) : document.createElement(tag);
          for (const [name, value] of Object.entries(props ?? {})) {
            if (value === undefined || value === null || value === false) continue;
            if (name === 'style') for (const [key, to] of Object.entries(value)) made.style.setProperty(key, to);
            else made.setAttribute(name, value === true ? '' : value);
          }
          made.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
          return made;
        },
    },
  );
}

export const html = maker('');
export const svg = maker('svg');
export const math = maker('math');

/** Replace an element's children. */
export function draw(parent, ...children) {
  const next = children
    .flat(9)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (typeof child === 'string' ? document.createTextNode(child) : child));
  sync(parent, next);
}

/** Reuse old children for new ones of the same kind; remove the rest and insert new ones. An element with the focus is
 * not moved, as it would lose it. */
function sync(parent, next) {
  let now = parent.firstChild;
  for (const child of next) {
    let found = now;
    while (found && kindOf(found) !== kindOf(child)) found = found.nextSibling;
    if (!found) {
      parent.insertBefore(child, now);
      continue;
    }
    if (found.contains(document.activeElement)) {
      while (now !== found) now = nodeBehind(now);
    } else if (now !== found) parent.insertBefore(found, now); // what it passes may be wanted later
    now = found.nextSibling;
    morph(found, child);
  }
  while (now) now = nodeBehind(now);
}

/** The node behind one that is removed. */
function nodeBehind(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

/** Elements with a key or an id are known by it; others by their first class. */
function kindOf(node) {
  const own = node.dataset?.key ?? (node.id || null);
  return `${node.nodeName} ${own === null ? (node.classList?.[0] ?? '') : `#${own}`}`;
}

/** Update an element to match another of the same kind. */
function morph(now, next) {
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
  if (now.nodeName === 'OPTION') now.selected = next.hasAttribute('selected'); // once chosen by hand, attributes are not asked
  if (now.nodeName === 'TEXTAREA' && now !== document.activeElement) now.value = next.textContent;
  else sync(now, [...next.childNodes]);
  return undefined;
}

/** Scroll a box sideways so that an element of it is seen; what is around the box stays where it is. */
export function showWithin(box, selector) {
  const element = box?.querySelector(selector);
  if (!element) return;
  const [around, own] = [box, element].map((each) => each.getBoundingClientRect());
  box.scrollLeft += Math.min(0, own.left - around.left) || Math.max(0, own.right - around.right);
}
