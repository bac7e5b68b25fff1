// What the head sheet asks of all heads, heard on the way: the heaviest weights of a row or a column in any of them.

import { Refused } from '../ask.js';

/** `request` for the sheet, and what was last told `of` a view: the heaviest weights, the reason why there are none, or
 * nothing yet. `changed` is called when it is told. */
export function makeHeard(request, changed) {
  let last = null;

  async function asked(what, about, signal) {
    if (what !== 'heaviest') return request(what, about, signal);
    try {
      const { found } = await request(what, about, signal);
      hear({ about, found });
      return { found };
    } catch (error) {
      if (error instanceof Refused) hear({ about, said: error.message });
      throw error;
    }
  }

  function hear(told) {
    last = told;
    changed();
  }

  function of({ about, by, at }) {
    const same = last && ['reading', 'part'].every((key) => last.about[key] === about[key]);
    return same && last.about.by === by && last.about.at === at ? last : null;
  }

  return { request: asked, of };
}
