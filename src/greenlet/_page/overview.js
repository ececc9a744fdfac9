// Draws the overview: how often the whole recording switches, how much of the time schedulers run,
// and which part of it is in view.
"use strict";

const OVERVIEW = 46; // pixels

// Gives a canvas this size, for the pixels that the screen has; returns its context.
function resized(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d", { alpha: false });
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return context;
}

class Overview {
  constructor(painter) {
    this.painter = painter;
    this.canvas = document.getElementById("overview");
    this.background = null; // what does not depend on the view
  }
  forget() { this.background = null; }

  draw(width) {
    const { model, state, css } = this.painter;
    if (!this.background || this.background.width !== Math.round(width * devicePixelRatio)) {
      this.background = this.paint(width);
    }
    const c = resized(this.canvas, width, OVERVIEW);
    c.drawImage(this.background, 0, 0, width, OVERVIEW);
    const left = state.from / model.duration * width, right = state.to / model.duration * width;
    c.fillStyle = css.text;
    c.globalAlpha = 0.18;
    c.fillRect(0, 0, left, OVERVIEW);
    c.fillRect(right, 0, width - right, OVERVIEW);
    c.globalAlpha = 1;
    if (right - left < width - 1) {
      c.strokeStyle = css.accent;
      c.lineWidth = 2;
      c.strokeRect(left + 1, 1, Math.max(right - left - 2, 2), OVERVIEW - 2);
    }
  }

  paint(width) {
    const canvas = document.createElement("canvas"), { css, model } = this.painter;
    const c = resized(canvas, width, OVERVIEW), pixels = width / Math.max(model.duration, 1);
    c.fillStyle = css.back;
    c.fillRect(0, 0, width, OVERVIEW);
    const switches = new Float64Array(width);
    for (const { start, count, begin } of model.threads) {
      for (let k = 0; k < count; k++) {
        if (start[k] > begin) switches[Math.min(Math.floor(start[k] * pixels), width - 1)]++;
      }
    }
    // By their logarithm, so that a few in a quiet time are seen, too.
    const most = Math.log1p(switches.reduce((a, b) => Math.max(a, b), 1));
    c.fillStyle = css.accent;
    for (let x = 0; x < width; x++) {
      const tall = Math.log1p(switches[x]) / most * (OVERVIEW - 14);
      c.fillRect(x, OVERVIEW - 3 - tall, 1, tall);
    }
    c.font = "11px system-ui, sans-serif";
    c.textBaseline = "top";
    const text = "switches", wide = c.measureText(text).width;
    c.fillStyle = css.back;
    c.globalAlpha = 0.75;
    c.fillRect(4, 2, wide + 8, 15);
    c.globalAlpha = 1;
    c.fillStyle = css.dim;
    c.fillText(text, 8, 4);
    return canvas;
  }
}
