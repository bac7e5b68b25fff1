// The focus stays on the page: where the element that has it goes, another gets it.

/** Watch a part of the page; `otherwise` gives the focus to what stays. */
export function keepFocus(room, otherwise) {
  let had = null;
  room.addEventListener('focusin', ({ target }) => (had = target));
  room.addEventListener('pointerdown', () => (had = null)); // beside everything that takes it
  new MutationObserver(() => {
    if (had && !had.isConnected && document.activeElement === document.body) otherwise();
  }).observe(room, { childList: true, subtree: true });
}
