// Wheel, drag, pinch and double click on a map.

const WHEEL_DOUBLES = 240; // pixels of wheel that double the size
const STILL = 4; // pixels that a click may move

/** Tell what is done to an element: `zoom(factor, point)` and `pan(dx, dy)` return whether anything moved, `point(at)`
 * has the place of the pointer or null, `choose(at)` that of a double click. Places are pixels from the upper left. */
export function watchGestures(element, { zoom, pan, point, choose }) {
  const down = new Map(); // pointer → place
  let dragged = 0;
  const placeOf = (event) => {
    const { left, top } = element.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };

  element.addEventListener(
    'wheel',
    (event) => {
      const lines = event.deltaMode === 1 ? 16 : 1;
      if (zoom(2 ** ((-event.deltaY * lines) / WHEEL_DOUBLES), placeOf(event))) event.preventDefault();
    },
    { passive: false },
  );
  element.addEventListener('pointerdown', (event) => {
    if (event.button) return;
    down.set(event.pointerId, placeOf(event));
    element.setPointerCapture(event.pointerId);
    if (down.size === 1) dragged = 0;
  });
  element.addEventListener('pointermove', (event) => {
    const at = placeOf(event);
    const before = down.get(event.pointerId);
    if (!before) return point(at);
    const others = [...down].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    down.set(event.pointerId, at);
    if (others.length) return pinch(before, at, others[0]);
    dragged += Math.hypot(at[0] - before[0], at[1] - before[1]);
    if (dragged > STILL) pan(before[0] - at[0], before[1] - at[1]);
    return undefined;
  });
  for (const kind of ['pointerup', 'pointercancel']) {
    element.addEventListener(kind, (event) => {
      if (down.delete(event.pointerId) && kind === 'pointerup' && dragged <= STILL) point(placeOf(event));
    });
  }
  element.addEventListener('pointerleave', (event) => {
    if (event.pointerType === 'mouse') point(null);
  });
  element.addEventListener('dblclick', (event) => {
    if (dragged <= STILL) choose(placeOf(event));
  });

  /** One finger moves while another rests. */
  function pinch(before, at, other) {
    const length = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    zoom(length(at) / Math.max(1, length(before)), other);
    dragged = STILL + 1;
  }
}
