// The text, each token shaded by its weight; only the lines in view are in the page.

import { html } from '../dom.js';
import { makeLayout } from './layout.js';
import { whole } from '../numbers.js';
import { areWords, hasGap, shownToken } from './tokens.js';

const SPARE_LINES = 3; // drawn above and below the view
const PAGE = 0.1; // of the text

/** A text: `host` is told of tokens that are chosen (`choose`, `compare`), pointed at (`point`), and of scrolling. */
export function makeText(host) {
  const space = html.div({ class: 'space', role: 'none' });
  const element = html.div(
    { class: 'text word scrolls', id: host.id, tabindex: 0, role: 'listbox', 'aria-label': host.label },
    space,
  );
  const pen = document.createElement('canvas').getContext('2d');
  const layout = makeLayout((text) => pen.measureText(text).width);
  const drawn = new Map(); // line → its element
  let told = { names: [], weights: null, shift: 0, chosen: null, other: null }; // and shade, say, state
  let hits = { tokens: new Set(), now: null };
  let words = false;
  let lineHeight = 24;
  let fitted = ''; // the font that widths were measured in
  let wanted = null; // what to show once its line is there: { token, also }
  let waiting = false;

  function fit() {
    const style = getComputedStyle(element);
    const width = element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    if (width <= 0) return;
    const kept = layout.lines ? layout.span(Math.min(layout.lines - 1, firstLine()))[0] : null;
    const font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    const changed = font !== fitted;
    fitted = pen.font = font;
    lineHeight = parseFloat(style.lineHeight) || 24;
    layout.reset(width - 4, changed);
    extend();
    redraw();
    if (kept !== null) element.scrollTop = layout.lineOf(kept) * lineHeight;
    drawLines();
  }

  function extend() {
    if (!layout.tokens) words = areWords(told.names);
    if (!element.clientWidth) return;
    const last = layout.lines - 1; // which may go on
    layout.extend(told.names, words);
    drawn.get(last)?.remove();
    drawn.delete(last);
    space.style.setProperty('height', `${layout.lines * lineHeight}px`);
    host.tall?.(layout.lines * lineHeight);
    if (wanted && wanted.token < layout.tokens) show(wanted.token, false, wanted.also);
  }

  const firstLine = () => Math.max(0, Math.floor(element.scrollTop / lineHeight));
  const lastLine = () => Math.min(layout.lines, Math.ceil((element.scrollTop + element.clientHeight) / lineHeight));

  function redraw() {
    drawn.clear();
    space.replaceChildren();
  }

  function drawLines() {
    waiting = false;
    const from = Math.max(0, firstLine() - SPARE_LINES),
      to = Math.min(layout.lines, lastLine() + SPARE_LINES);
    for (const [line, made] of drawn) {
      if (line >= from && line < to) continue;
      made.remove();
      drawn.delete(line);
    }
    for (let line = from; line < to; line += 1) {
      if (drawn.has(line)) continue;
      const made = lineView(line);
      drawn.set(line, made);
      space.append(made);
    }
    const chosen = told.chosen === null ? null : `${host.id}-${told.chosen}`;
    if (chosen && space.querySelector(`#${chosen}`)) element.setAttribute('aria-activedescendant', chosen);
    else element.removeAttribute('aria-activedescendant');
    if (layout.lines) host.scrolled?.(layout.span(Math.min(layout.lines - 1, firstLine()))[0], lastToken());
  }

  const lastToken = () => layout.span(Math.max(0, lastLine() - 1))[1];

  function drawSoon() {
    if (!waiting) requestAnimationFrame(drawLines);
    waiting = true;
  }

  function lineView(line) {
    const [from, to] = layout.span(line);
    const made = html.div({ class: 'ln', role: 'none', dir: 'auto', style: { top: `${line * lineHeight}px` } });
    const own = !line || told.names[from - 1].includes('\n'); // a blank that begins a line belongs to the text
    for (let token = from; token < to; token += 1) {
      const name = told.names[token],
        { lead } = shownToken(name);
      if (words ? token > from && hasGap(name) : lead && (token > from || own)) made.append(words ? ' ' : lead);
      const view = tokenView(token, name);
      dress(view, token);
      made.append(view);
    }
    return made;
  }

  /** A token's text, or its part of a character that tokens share: that many slices of the character side by side. */
  function tokenView(token, name) {
    const piece = layout.pieceOf(token),
      common = { id: `${host.id}-${token}`, 'data-j': token, role: 'option' };
    if (!piece) {
      const { text, mark } = shownToken(name);
      return html.span({ ...common, 'data-kind': mark ? 'sign' : layout.isLong(name) ? 'long' : null }, text);
    }
    const { text, at, count, width } = piece;
    const told = {
      'data-kind': 'piece',
      'data-bytes': name.trim(),
      'aria-label': `${text}, piece ${at + 1} of ${count}`,
    };
    const left = (count * width - pen.measureText(text).width) / 2 - at * width;
    return html.span(
      { ...common, ...told, style: { width: `${width}px` } },
      html.span({ class: 'glyph', style: { 'margin-inline-start': `${left}px` } }, shownToken(text).text),
    );
  }

  /** A token's shade, state and number. */
  function dress(view, token) {
    const { kind, bytes } = view.dataset;
    const at = token - told.shift,
      weight = told.weights && at >= 0 && at < told.weights.length ? told.weights[at] : null,
      state = told.state?.(token);
    const step = weight !== null && token !== told.chosen ? told.shade(weight, at) : 0;
    view.className = [
      't',
      kind ?? '',
      step ? `w${step}` : '',
      state ? 'later' : '',
      token === told.chosen ? 'looker' : '',
      token === told.other ? 'target' : '',
      hits.tokens.has(token) ? 'hit' : '',
      token === hits.now ? 'now' : '',
    ]
      .filter(Boolean)
      .join(' ');
    view.title = `${bytes ? `${bytes}, ` : ''}${whole(token)}${state ? `: ${state}` : weight === null ? '' : `: ${told.say(weight)}`}`;
    view.setAttribute('aria-selected', String(token === told.chosen));
  }

  function dressAll() {
    for (const made of drawn.values()) {
      for (const view of made.children) dress(view, Number(view.dataset.j));
    }
  }

  /** Scroll to a token: to the middle, with another one in view if there is room, or just so far that it is seen. */
  function show(token, nearest = false, also = null) {
    wanted = token < layout.tokens && element.clientHeight ? null : { token, also };
    if (wanted) return;
    const high = element.clientHeight,
      from = element.scrollTop;
    const topOf = (one) => layout.lineOf(one) * lineHeight,
      isSeen = (top) => top >= from && top + lineHeight <= from + high;
    const top = topOf(token),
      other = also !== null && also < layout.tokens ? topOf(also) : top;
    const both = Math.abs(top - other) + lineHeight <= high;
    if (isSeen(top) && (nearest || !both || isSeen(other))) return;
    if (!nearest) element.scrollTop = (both ? (top + other) / 2 : top) - (high - lineHeight) / 2;
    else element.scrollTop = top < from ? top - lineHeight : top + 2 * lineHeight - high;
    drawLines();
  }

  /** The token on another line nearest to a token's place. */
  function beside(token, lines) {
    const line = layout.lineOf(token),
      next = Math.max(0, Math.min(layout.lines - 1, line + lines));
    const [from, to] = layout.span(next);
    const view = space.querySelector(`#${host.id}-${token}`),
      middle = view ? middleOf(view) : 0;
    const there = [...(drawn.get(next)?.children ?? [])];
    if (!there.length || line === next)
      return line === next ? token : Math.min(to - 1, from + token - layout.span(line)[0]);
    return Number(
      there.reduce((a, b) => (Math.abs(middleOf(b) - middle) < Math.abs(middleOf(a) - middle) ? b : a)).dataset.j,
    );
  }

  function middleOf(view) {
    const box = view.getBoundingClientRect();
    return box.left + box.width / 2;
  }

  element.addEventListener('scroll', drawSoon, { passive: true });
  element.addEventListener('mousedown', (event) => {
    if (!event.shiftKey) return;
    event.preventDefault(); // Shift and a click choose the other of the pair, and select no text
    element.focus({ preventScroll: true });
  });
  element.addEventListener('click', (event) => {
    const token = event.target.closest('[data-j]')?.dataset.j;
    if (token === undefined) return;
    if (event.shiftKey || event.altKey) host.compare(Number(token));
    else host.choose(Number(token));
  });
  element.addEventListener('pointerover', (event) => {
    if (event.pointerType !== 'touch') host.point(Number(event.target.closest('[data-j]')?.dataset.j ?? NaN));
  });
  element.addEventListener('pointerleave', () => host.point(NaN));
  new ResizeObserver(fit).observe(element);
  document.fonts?.ready.then(fit);

  return {
    element,
    show,
    update(next) {
      const other = next.names !== told.names;
      told = next;
      if (other) {
        layout.reset(Math.max(1, element.clientWidth), false);
        redraw();
        fit();
      } else if (layout.tokens < told.names.length) extend();
      dressAll();
      drawLines();
    },
    /** Mark what a search has found. */
    mark(found) {
      hits = found;
      dressAll();
    },
    /** Where a key of the keyboard leads from a token, or null. */
    moved(key, token) {
      const last = told.names.length - 1,
        page = Math.max(1, Math.round(PAGE * (last + 1)));
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -page, PageDown: page }[key];
      if (by) return Math.max(0, Math.min(last, token + by));
      if (key === 'Home' || key === 'End') return key === 'Home' ? 0 : last;
      if (key === 'ArrowUp' || key === 'ArrowDown') return beside(token, key === 'ArrowUp' ? -1 : 1);
      return null;
    },
  };
}
