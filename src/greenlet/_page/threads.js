// Draws the row of a thread: which greenlet runs.
"use strict";

const MOST_SHARES = 3e6; // runs in view that are summed up for each frame

class ThreadPainter {
  constructor(painter) {
    this.painter = painter;
    this.sums = new Map(); // of each thread, for the view of the last frame
  }

  // Each run in the colour of its greenlet, with the name if there is room.
  draw(row, y) {
    const { painter } = this, { context: c, css, model, state, width } = painter;
    const { thread } = row, { start, who, count } = thread;
    const top = y + 7, high = row.height - 13;
    const low = Math.max(after(start, state.from, 0, count) - 1, 0);
    const stop = after(start, state.to, low, count);
    if (stop - low > (width - NAMES) / 2) {
      this.drawShares(thread, low, stop, top, high);
      return;
    }
    c.font = "11px system-ui, sans-serif";
    c.textAlign = "left";
    for (let k = low; k < stop; k++) {
      const g = who[k], left = Math.max(painter.x(start[k]), NAMES - 4);
      const right = Math.min(painter.x(start[k + 1]), width + 4), wide = right - left;
      if (wide < 0) continue;
      const isIdle = model.flags[g] & SCHEDULER;
      c.fillStyle = isIdle ? painter.idleStyle() : painter.colorOf(g);
      c.fillRect(left, top, Math.max(wide - (wide > 3 ? 1 : 0), 1), high);
      const shown = Math.max(left, NAMES) + 5;
      if (right - shown > 20) {
        c.fillStyle = isIdle ? css.text : painter.isDark ? "#101418" : "#ffffff";
        c.fillText(painter.fitted(model.label(g), right - shown - 5), shown, top + high / 2 + 0.5);
      }
    }
    painter.drawThrown(thread, low, stop, top - 1);
  }

  // Of each pixel, the shares of the colours, one above the other; schedulers on top.
  drawShares(thread, low, stop, top, high) {
    const { painter } = this, { context: c, css, width } = painter;
    const kinds = PALETTE.length + 2, idle = PALETTE.length;
    const sums = this.sharesOf(thread, low, stop, kinds);
    const bottom = new Float64Array(width).fill(top + high);
    for (const kind of [PALETTE.length + 1, ...PALETTE.keys(), idle]) {
      c.fillStyle = kind === idle ? css.idle : painter.color(kind);
      for (let x = 0; x < width - NAMES; x++) {
        const tall = sums[x * kinds + kind] * high;
        if (tall > 0) {
          // A little taller, so that no line of the background shows between two.
          c.fillRect(NAMES + x, bottom[x] - tall - 0.3, 1, tall + 0.3);
          bottom[x] -= tall;
        }
      }
    }
  }

  sharesOf(thread, low, stop, kinds) {
    const { painter } = this, { state, width } = painter, wide = width - NAMES;
    const key = `${state.from} ${state.to} ${width}`, known = this.sums.get(thread);
    if (known?.key === key) return known.sums;
    const { start, who } = thread, sums = new Float32Array(wide * kinds);
    const pixels = wide / (state.to - state.from);
    // With very many runs in view, only every so many of them stand for all.
    const every = Math.ceil((stop - low) / MOST_SHARES);
    const number = new Uint8Array(painter.model.count);
    for (const g of thread.greenlets) number[g] = painter.colorNumber(g);
    for (let k = low; k < stop; k += every) {
      let left = Math.max((start[k] - state.from) * pixels, 0);
      const right = Math.min((start[Math.min(k + every, stop)] - state.from) * pixels, wide);
      const kind = number[who[k]];
      for (let x = Math.floor(left); left < right; x++) {
        const end = Math.min(x + 1, right);
        sums[x * kinds + kind] += end - left;
        left = end;
      }
    }
    this.sums.set(thread, { key, sums });
    return sums;
  }
}
