// Draws the chart: the rows with their lanes, the ruler, the switches between rows.
//
// A lane with more runs in view than pixels is drawn as shares: how much of each pixel's time they
// take. Sums before each run make that as fast for a million runs as for a thousand.
"use strict";

const RULER = 24, ROW = 20, THREAD_ROW = 40, NAMES = 250;
const LEVELS = 16; // of shares
const MOST_LINES = 400; // switches that are shown as lines between rows

// Colours that people tell apart, also those who see few: for light and for dark backgrounds.
const PALETTE = [
  ["#0b6bcb", "#6cb2ff"], ["#c2500a", "#ffa264"], ["#0a7d5c", "#4fd1a5"], ["#a8327d", "#f28bcb"],
  ["#8a6100", "#e6c04a"], ["#5b4fc7", "#a99cff"], ["#0d7490", "#5fd0ea"], ["#b01e3c", "#ff8598"],
  ["#4c7a12", "#a5d65f"], ["#7a4a24", "#d9a577"], ["#465a78", "#a9bddb"], ["#86329e", "#d996f0"],
];

class Painter {
  constructor(model, state) {
    this.model = model;
    this.state = state;
    this.canvas = document.getElementById("chart");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.overview = new Overview(this);
    this.threads = new ThreadPainter(this);
    this.readColors();
  }

  readColors() {
    const style = getComputedStyle(document.documentElement);
    this.isDark = document.documentElement.dataset.theme === "dark";
    this.css = {};
    for (const name of ["back", "panel", "band", "thread", "line", "text", "dim", "accent", "chosen",
      "grid", "idle", "idle-line", "bad", "missing", "arrow"]) {
      this.css[name] = style.getPropertyValue(`--${name}`).trim();
    }
    this.hatch = null;
    this.overview?.forget();
  }

  // The number of a greenlet's colour, and the colours: of the palette, for greenlets that run the
  // same function; then those of schedulers and of main greenlets.
  colorNumber(g) {
    const { flags, color } = this.model;
    if (flags[g] & SCHEDULER) return PALETTE.length;
    return flags[g] & MAIN ? PALETTE.length + 1 : color[g] % PALETTE.length;
  }
  color(number) {
    const special = [this.css["idle-line"], this.css.dim];
    return number < PALETTE.length ? PALETTE[number][this.isDark ? 1 : 0] : special[number - PALETTE.length];
  }
  colorOf(g) { return this.color(this.colorNumber(g)); }

  x(time) {
    const { from, to } = this.state;
    return NAMES + (time - from) / (to - from) * (this.width - NAMES);
  }
  time(x) {
    const { from, to } = this.state;
    return from + (x - NAMES) / (this.width - NAMES) * (to - from);
  }

  draw(width, height) {
    if (width !== this.width || height !== this.height || devicePixelRatio !== this.scale) {
      this.width = width;
      this.height = height;
      this.scale = devicePixelRatio;
      resized(this.canvas, width, height);
      this.hatch = null;
    }
    const { context: c, css, state } = this;
    c.fillStyle = css.back;
    c.fillRect(0, 0, width, height);
    c.textBaseline = "middle";
    const visible = state.visibleRows(height - RULER);
    for (const row of visible) this.drawBack(row, this.top(row));
    this.drawGrid();
    c.save();
    c.beginPath();
    c.rect(NAMES, RULER, width - NAMES, height - RULER);
    c.clip();
    for (const row of visible) {
      if (row.kind === "thread") this.threads.draw(row, this.top(row));
      else this.drawGreenlet(row, this.top(row));
    }
    this.drawMissing();
    this.drawSwitches(visible);
    this.drawChosenRun(visible);
    c.restore();
    for (const row of visible) this.drawName(row, this.top(row));
    this.drawRuler();
  }

  top(row) { return RULER + row.top - this.state.scroll; }

  drawBack(row, y) {
    const { context: c, css, state } = this;
    const isChosen = state.isChosen(row);
    c.fillStyle = isChosen ? css.chosen
      : row.kind === "thread" ? css.thread : row.number % 2 ? css.band : css.back;
    c.fillRect(0, y, this.width, row.height);
    if (row.kind === "thread") {
      c.fillStyle = css.line;
      c.fillRect(0, y, this.width, 1);
    }
  }

  ticks() {
    const { from, to } = this.state, space = (to - from) / ((this.width - NAMES) / 110);
    const power = 10 ** Math.floor(Math.log10(space));
    const step = [1, 2, 5, 10].map(one => one * power).find(one => one >= space);
    const found = [];
    for (let i = Math.ceil(from / step); i * step <= to; i++) found.push(i * step);
    return [found, step];
  }

  drawGrid() {
    const { context: c, css } = this;
    c.fillStyle = css.grid;
    for (const time of this.ticks()[0]) c.fillRect(Math.round(this.x(time)), RULER, 1, this.height);
  }

  drawRuler() {
    const { context: c, css, state, width } = this;
    c.fillStyle = css.panel;
    c.fillRect(0, 0, width, RULER);
    c.fillStyle = css.line;
    c.fillRect(0, RULER - 1, width, 1);
    c.fillRect(NAMES - 1, 0, 1, this.height);
    c.font = "11px system-ui, sans-serif";
    c.fillStyle = css.dim;
    c.textAlign = "left";
    c.fillText(`${duration(state.to - state.from)} in view`, 10, RULER / 2);
    const [ticks, step] = this.ticks();
    c.save();
    c.beginPath();
    c.rect(NAMES, 0, width - NAMES, RULER);
    c.clip();
    for (const time of ticks) {
      const x = Math.round(this.x(time));
      c.fillStyle = css.line;
      c.fillRect(x, RULER - 7, 1, 7);
      c.fillStyle = css.dim;
      const text = moment(time, step, state.to);
      if (x + 4 + c.measureText(text).width < width) c.fillText(text, x + 4, RULER / 2 - 1);
    }
    const { pointer, measure } = state;
    if (measure) {
      const left = this.x(Math.min(measure.from, measure.to));
      const right = this.x(Math.max(measure.from, measure.to));
      c.restore();
      c.save();
      c.globalAlpha = 0.18;
      c.fillStyle = css.accent;
      c.fillRect(left, 0, right - left, this.height);
      c.globalAlpha = 1;
      this.drawPill(duration(Math.abs(measure.to - measure.from)), (left + right) / 2);
    } else if (pointer && pointer.x >= NAMES) {
      c.restore();
      c.save();
      c.fillStyle = css["idle-line"];
      c.fillRect(Math.round(pointer.x), RULER, 1, this.height);
      const fine = (state.to - state.from) / (width - NAMES);
      this.drawPill(moment(this.time(pointer.x), fine, state.to), pointer.x);
    }
    c.restore();
  }

  drawPill(text, x) {
    const { context: c, css } = this;
    c.font = "11px system-ui, sans-serif";
    const wide = c.measureText(text).width + 12;
    const left = Math.min(Math.max(x - wide / 2, NAMES), this.width - wide);
    c.fillStyle = css.text;
    c.beginPath();
    c.roundRect(left, 3, wide, RULER - 7, 4);
    c.fill();
    c.fillStyle = css.back;
    c.textAlign = "left";
    c.fillText(text, left + 6, RULER / 2 - 0.5);
  }

  fitted(text, wide) {
    const { context: c } = this;
    if (c.measureText(text).width <= wide) return text;
    let low = 0, high = text.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (c.measureText(text.slice(0, middle) + "…").width <= wide) low = middle; else high = middle - 1;
    }
    return low ? text.slice(0, low) + "…" : "";
  }

  drawName(row, y) {
    const { context: c, css, state } = this, isThread = row.kind === "thread";
    const middle = y + (isThread ? 14 : row.height / 2);
    c.fillStyle = state.isChosen(row) ? css.chosen
      : isThread ? css.thread : row.number % 2 ? css.band : css.back;
    c.fillRect(0, y + (isThread ? 1 : 0), NAMES - 1, row.height - (isThread ? 1 : 0));
    const indent = isThread ? 8 : row.kind === "group" || !row.inGroup ? 20 : 34;
    if (row.canFold) this.drawFold(indent, middle, row.isFolded);
    let x = indent + 12;
    if (!isThread) {
      c.fillStyle = this.colorOf(row.kind === "group" ? row.group.members[0] : row.greenlet);
      c.beginPath();
      c.roundRect(x, middle - 4, 8, 8, 2);
      c.fill();
      x += 14;
    }
    const note = state.note(row);
    let room = NAMES - 10 - x;
    c.font = "11px system-ui, sans-serif";
    c.fillStyle = css.dim;
    if (isThread) {
      c.textAlign = "left";
      c.fillText(this.fitted(note, room), x, y + 29);
    } else {
      c.textAlign = "right";
      c.fillText(note, NAMES - 10, middle);
      room -= c.measureText(note).width + 10;
    }
    c.textAlign = "left";
    c.font = `${isThread ? "600 13px" : "12px"} system-ui, sans-serif`;
    c.fillStyle = css.text;
    c.fillText(this.fitted(state.title(row), room), x, middle);
  }

  // The triangle beside what can be folded.
  drawFold(x, y, isFolded) {
    const { context: c, css } = this;
    const corners = isFolded ? [[0, -4], [6, 0], [0, 4]] : [[-1, -3], [7, -3], [3, 3]];
    c.fillStyle = css.dim;
    c.beginPath();
    for (const [right, down] of corners) c.lineTo(x + right, y + down);
    c.fill();
  }

  idleStyle() {
    if (!this.hatch) {
      const tile = document.createElement("canvas");
      tile.width = tile.height = 6;
      const t = tile.getContext("2d");
      t.fillStyle = this.css.idle;
      t.globalAlpha = 0.45;
      t.fillRect(0, 0, 6, 6);
      t.globalAlpha = 1;
      t.strokeStyle = this.css["idle-line"];
      t.globalAlpha = 0.7;
      t.beginPath();
      for (const at of [-3, 3, 9]) { t.moveTo(at - 3, 6 + 3); t.lineTo(at + 6, 0); }
      t.stroke();
      this.hatch = this.context.createPattern(tile, "repeat");
    }
    return this.hatch;
  }

  drawThrown(thread, low, stop, y) {
    const { context: c, css } = this;
    c.fillStyle = css.bad;
    for (let k = low; k < stop; k++) {
      if (thread.what[k] & THROWN) this.drawTriangle(this.x(thread.start[k]), y);
    }
  }
  drawTriangle(x, y) {
    const { context: c } = this;
    c.beginPath();
    c.moveTo(x - 4, y - 1); c.lineTo(x + 4, y - 1); c.lineTo(x, y + 6);
    c.fill();
  }

  // A greenlet or a group: blocks where it runs, a line where it waits.
  drawGreenlet(row, y) {
    const { context: c, css, model, state, width } = this;
    const isGroup = row.kind === "group", g = isGroup ? row.group.members[0] : row.greenlet;
    const lane = isGroup ? row.group.lane : model.lanes[g];
    const color = this.colorOf(g), isIdle = model.flags[g] & SCHEDULER;
    const top = y + 4, high = row.height - 8, middle = y + row.height / 2;
    const [born, died] = state.life(row);
    const left = Math.max(this.x(born), NAMES), right = Math.min(this.x(died), width);
    if (right < left) return;
    c.fillStyle = color;
    c.globalAlpha = 0.5;
    c.fillRect(left, middle - 1, Math.max(right - left, 1), 2);
    c.globalAlpha = 1;
    const low = Math.max(lane.after(state.from) - 1, lane.from);
    const stop = lane.after(state.to, low);
    if (stop - low > (width - NAMES) / 2) {
      this.drawShares(lane, low, stop, left, right, top, high, color);
    } else {
      c.fillStyle = isIdle ? this.idleStyle() : color;
      let painted = -1;
      for (let i = low; i < stop; i++) {
        const begin = Math.max(this.x(lane.start(i)), NAMES - 4);
        const end = Math.min(Math.max(this.x(lane.end(i)), begin + 1), width + 4);
        if (end <= painted || end < NAMES) continue;
        c.fillRect(begin, top, end - begin, high);
        painted = end;
      }
      c.fillStyle = css.bad;
      for (let i = low; i < stop; i++) {
        if (lane.thread.what[lane.order[i]] & THROWN) this.drawTriangle(this.x(lane.start(i)), y);
      }
    }
    if (!isGroup && model.flags[g] & HAS_FINISHED && right < width) {
      c.fillStyle = css.text;
      c.fillRect(this.x(died) - 1, y + 2, 2, row.height - 4);
    }
  }

  drawShares(lane, low, stop, left, right, top, high, color) {
    const { context: c, state } = this;
    const pixel = (state.to - state.from) / (this.width - NAMES);
    const first = Math.floor(left), last = Math.ceil(right);
    let i = lane.after(this.time(first), low), before = lane.until(this.time(first), i);
    let level = 0, begin = first;
    c.fillStyle = color;
    const paint = end => {
      if (level) {
        c.globalAlpha = 0.2 + 0.8 * level / LEVELS;
        c.fillRect(begin, top, end - begin, high);
      }
    };
    for (let x = first; x < last; x++) {
      const time = this.time(x + 1);
      i = lane.after(time, i);
      const now = lane.until(time, i);
      const share = Math.ceil(Math.min((now - before) / pixel, 1) * LEVELS);
      before = now;
      if (share !== level) {
        paint(x);
        level = share;
        begin = x;
      }
    }
    paint(last);
    c.globalAlpha = 1;
  }

  drawMissing() {
    const { context: c, css, model, width, height } = this;
    if (model.completeUntil == null) return;
    const x = Math.max(this.x(model.completeUntil), NAMES);
    if (x < width) {
      c.fillStyle = css.missing;
      c.fillRect(x, RULER, width - x, height - RULER);
      c.fillStyle = css.bad;
      c.fillRect(x, RULER, 1, height - RULER);
    }
  }

  // Lines between the rows of two greenlets: one has switched to the other.
  drawSwitches(visible) {
    const { context: c, css, model, state, width } = this, middle = new Map();
    for (const row of visible) {
      const y = this.top(row) + row.height / 2;
      if (row.kind === "greenlet") middle.set(row.greenlet, y);
      if (row.kind === "group" && row.isFolded) for (const g of row.group.members) middle.set(g, y);
    }
    const draw = (thread, low, stop, only) => {
      for (let k = Math.max(low, 1); k < stop; k++) {
        const from = thread.who[k - 1], to = thread.who[k];
        if (only !== undefined && from !== only && to !== only) continue;
        const y = middle.get(from), end = middle.get(to);
        if (y === undefined || end === undefined || y === end) continue;
        const x = Math.round(this.x(thread.start[k])) + 0.5, down = Math.sign(end - y);
        c.strokeStyle = c.fillStyle = thread.what[k] & THROWN ? css.bad : only === undefined ? css.arrow : css.text;
        c.beginPath();
        c.moveTo(x, y);
        c.lineTo(x, end - 6 * down);
        c.stroke();
        c.beginPath();
        c.moveTo(x, end - 3 * down); c.lineTo(x - 3, end - 8 * down); c.lineTo(x + 3, end - 8 * down);
        c.fill();
      }
    };
    c.lineWidth = 1;
    const chosen = state.chosen?.kind === "greenlet" ? state.chosen.greenlet : undefined;
    for (const thread of model.threads) {
      const low = after(thread.start, state.from, 0, thread.count);
      const stop = after(thread.start, state.to, low, thread.count);
      if (stop - low <= Math.min(MOST_LINES, (width - NAMES) / 4)) {
        c.globalAlpha = 0.7;
        draw(thread, low, stop);
        c.globalAlpha = 1;
        if (chosen !== undefined) draw(thread, low, stop, chosen);
      }
    }
  }

  drawChosenRun(visible) {
    const { context: c, css, state } = this, { run } = state;
    if (!run) return;
    for (const row of visible) {
      if (!state.shows(row, run)) continue;
      const begin = this.x(run.thread.start[run.k]), end = this.x(run.thread.start[run.k + 1]);
      c.strokeStyle = css.text;
      c.lineWidth = 2;
      const inset = row.kind === "thread" ? 6 : 3;
      c.strokeRect(begin, this.top(row) + inset, Math.max(end - begin, 2), row.height - 2 * inset + 1);
      c.lineWidth = 1;
    }
  }
}
