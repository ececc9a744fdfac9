// What is in view and what is chosen.
"use strict";

const SHORTEST = 20; // nanoseconds in view
const LARGE_GROUP = 8; // more members are folded at first
const TALLEST = 8e6; // pixels that browsers can scroll

class App {
  constructor(model) {
    this.model = model;
    this.from = 0;
    this.to = Math.max(model.duration, SHORTEST);
    this.scroll = 0;
    this.rows = [];
    this.chosen = this.run = this.pointer = this.measure = null;
    this.filter = "";
    this.found = [];
    this.order = "first";
    this.foldedThreads = new Set();
    this.folded = new Set(model.groups.filter(one => one.members.length > LARGE_GROUP).map(one => one.number));
    this.painter = new Painter(model, this);
    this.details = new Details(model, this);
    this.scroller = document.getElementById("scroller");
    this.chart = document.getElementById("chart");
    this.layOut();
    this.details.show();
  }

  // --- rows ---

  layOut() {
    const { model, filter } = this;
    this.found = filter ? model.threads.flatMap(t => t.greenlets.filter(g => matches(model, g, filter))) : [];
    const wanted = filter ? new Set(this.found) : null;
    this.rows = [];
    let top = 0, number = 0;
    const add = row => {
      Object.assign(row, { top, number: number++, height: row.kind === "thread" ? THREAD_ROW : ROW });
      top += row.height;
      this.rows.push(row);
    };
    for (const thread of model.threads) {
      const groups = thread.groups
        .map(group => ({ group, members: wanted ? group.members.filter(g => wanted.has(g)) : group.members }))
        .filter(one => one.members.length);
      if (wanted && !groups.length) continue;
      const isFolded = this.foldedThreads.has(thread.index);
      add({ kind: "thread", thread, canFold: true, isFolded });
      if (isFolded) continue;
      for (const { group, members } of this.sorted(groups, one => one.members[0], one => one.group.lane)) {
        const inGroup = group.members.length > 1, isFolded = this.folded.has(group.number);
        if (inGroup) add({ kind: "group", group, members, canFold: true, isFolded });
        if (inGroup && isFolded) continue;
        for (const g of this.sorted(members, g => g, g => model.lanes[g])) {
          add({ kind: "greenlet", greenlet: g, inGroup });
        }
      }
    }
    this.height = top;
    this.onChange();
  }

  sorted(items, greenlet, lane) {
    const { model } = this;
    const first = one => (lane(one).runs ? lane(one).start(lane(one).from) : model.duration);
    const special = one => (model.flags[greenlet(one)] & MAIN ? 0 : model.flags[greenlet(one)] & SCHEDULER ? 1 : 2);
    const compare = {
      first: (a, b) => first(a) - first(b),
      time: (a, b) => lane(b).time - lane(a).time,
      runs: (a, b) => lane(b).runs - lane(a).runs,
      name: (a, b) => model.label(greenlet(a)).localeCompare(model.label(greenlet(b)), undefined, { numeric: true }),
    }[this.order];
    return [...items].sort((a, b) => special(a) - special(b) || compare(a, b) || greenlet(a) - greenlet(b));
  }

  visibleRows(height) {
    const { rows, scroll } = this;
    let low = 0, high = rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[middle].top + rows[middle].height > scroll) high = middle; else low = middle + 1;
    }
    const found = [];
    for (; low < rows.length && rows[low].top < scroll + height; low++) found.push(rows[low]);
    return found;
  }

  isChosen(row) {
    const { chosen } = this;
    if (!chosen) return false;
    if (chosen.kind === "greenlet" && row.kind === "group" && row.isFolded) {
      return this.model.group[chosen.greenlet] === row.group.number;
    }
    return chosen.kind === row.kind && chosen[row.kind] === row[row.kind];
  }
  shows(row, run) {
    const g = run.thread.who[run.k];
    if (row.kind === "thread") return row.thread === run.thread;
    return row.kind === "greenlet" ? row.greenlet === g
      : row.isFolded && row.group.number === this.model.group[g];
  }
  title(row) {
    if (row.kind === "thread") return row.thread.name;
    return row.kind === "group" ? row.group.name : this.model.label(row.greenlet);
  }
  note(row) {
    if (row.kind === "thread") {
      const { greenlets, cpu, last, begin } = row.thread;
      const share = cpu === null ? "" : ` · CPU ${percent(cpu / Math.max(last - begin, 1))}`;
      return plural(greenlets.length, "greenlet") + share;
    }
    if (row.kind === "group") return `× ${number(row.members.length)}`;
    return row.inGroup ? `#${row.greenlet}` : duration(this.model.lanes[row.greenlet].time);
  }
  life(row) {
    const { model } = this;
    if (row.kind === "greenlet") return [model.born(row.greenlet), model.died(row.greenlet)];
    const { group } = row;
    group.life ??= group.members.reduce(
      ([born, died], g) => [Math.min(born, model.born(g)), Math.max(died, model.died(g))], [Infinity, 0]);
    return group.life;
  }
  rowOf(what) {
    return this.rows.find(row => row.kind === what.kind && row[row.kind] === what[what.kind]) ??
      this.rows.find(row => what.kind === "greenlet" && row.kind === "group" &&
        row.group.number === this.model.group[what.greenlet]);
  }

  // --- what is chosen ---

  choose(what, run = null) {
    this.chosen = what;
    this.run = run;
    this.details.show();
    if (what) document.getElementById("live").textContent = this.inWords(what);
    this.paint();
  }
  inWords(what) {
    const { model } = this;
    if (what.kind === "thread") return `Thread ${what.thread.name}, ${plural(what.thread.greenlets.length, "greenlet")}`;
    if (what.kind === "group") return `${plural(what.group.members.length, "greenlet")} ${what.group.name}`;
    const lane = model.lanes[what.greenlet];
    return `Greenlet ${model.label(what.greenlet)}, ${plural(lane.runs, "run")}, ${duration(lane.time)}`;
  }
  chooseGreenlet(greenlet, { reveal = false } = {}) {
    const what = { kind: "greenlet", greenlet };
    if (reveal) this.unfoldFor(greenlet);
    this.choose(what);
    if (reveal) this.scrollTo(what);
  }
  chooseRun(thread, k, { reveal = false } = {}) {
    const greenlet = thread.who[k];
    this.choose({ kind: "greenlet", greenlet }, { thread, k });
    if (reveal) {
      const [begin, end] = [thread.start[k], thread.start[k + 1]], span = this.to - this.from;
      if (begin < this.from || end > this.to || end - begin < span / 400) {
        const wide = Math.min(span, Math.max((end - begin) * 20, SHORTEST));
        this.setView((begin + end - wide) / 2, (begin + end + wide) / 2);
      }
      this.scrollTo(this.chosen);
    }
  }
  unfoldFor(greenlet) {
    const { model } = this;
    const changed = this.folded.delete(model.group[greenlet]) + this.foldedThreads.delete(model.threadOf[greenlet]);
    if (changed) this.layOut();
  }
  scrollTo(what) {
    const row = this.rowOf(what), height = this.chart.clientHeight - RULER;
    if (!row) return;
    if (row.top < this.scroll) this.setScroll(row.top - ROW);
    else if (row.top + row.height > this.scroll + height) this.setScroll(row.top + row.height + ROW - height);
  }
  fold(row) {
    const [set, key] = row.kind === "thread"
      ? [this.foldedThreads, row.thread.index] : [this.folded, row.group.number];
    if (!set.delete(key)) set.add(key);
    this.layOut();
  }
  zoomTo(begin, end) {
    const margin = Math.max((end - begin) * 0.1, SHORTEST / 2);
    this.setView(begin - margin, end + margin);
  }
  zoomToChosen() {
    const { chosen, run } = this;
    if (run) this.zoomTo(run.thread.start[run.k], run.thread.start[run.k + 1]);
    else if (chosen?.kind === "thread") this.zoomTo(chosen.thread.begin, chosen.thread.last);
    else if (chosen) this.zoomTo(...this.life(chosen));
  }
  // The run of the chosen greenlet before or after the chosen one.
  step(by) {
    const { chosen, run, model } = this;
    if (chosen?.kind !== "greenlet") return;
    const lane = model.lanes[chosen.greenlet];
    const at = run ? lane.find(run.k) + by : Math.max(lane.after(this.from) - (by < 0 ? 1 : 0), lane.from);
    if (at >= lane.from && at < lane.to) this.chooseRun(lane.thread, lane.order[at], { reveal: true });
  }
  stepRow(by) {
    const at = this.chosen ? this.rows.indexOf(this.rowOf(this.chosen)) : by > 0 ? -1 : this.rows.length;
    const row = this.rows[Math.min(Math.max(at + by, 0), this.rows.length - 1)];
    if (row) {
      this.choose({ kind: row.kind, [row.kind]: row[row.kind] });
      this.scrollTo(row);
    }
  }

  // --- what is in view ---

  setView(from, to) {
    const whole = Math.max(this.model.duration, SHORTEST);
    const span = Math.min(Math.max(to - from, SHORTEST), whole);
    from = Math.min(Math.max((from + to - span) / 2, 0), whole - span);
    this.from = from;
    this.to = from + span;
    this.paint();
  }
  zoom(factor, at = (this.from + this.to) / 2) {
    const span = Math.max((this.to - this.from) * factor, SHORTEST);
    const share = (at - this.from) / (this.to - this.from);
    this.setView(at - share * span, at + (1 - share) * span);
  }
  pan(share) {
    const by = share * (this.to - this.from);
    this.setView(this.from + by, this.to + by);
  }
  setScroll(top) {
    const most = Math.max(this.height + RULER - this.scroller.clientHeight, 0);
    this.scroll = Math.min(Math.max(top, 0), most);
    this.scroller.scrollTop = this.scroll * this.squeeze;
    this.paint();
  }

  onChange() {
    const tall = this.height + RULER, spacer = document.getElementById("spacer");
    // Browsers bound the height of an element. Beyond that the scroll bar is coarser than the rows.
    const view = this.scroller.clientHeight;
    this.squeeze = tall > TALLEST ? (TALLEST - view) / (tall - view) : 1;
    spacer.style.height = `${Math.min(tall, TALLEST)}px`;
    const output = document.getElementById("matches");
    output.textContent = this.filter ? `${number(this.found.length)} of ${number(this.model.count)}` : "";
    this.setScroll(this.scroll);
  }

  paint() {
    document.getElementById("tip").hidden = true; // what it tells of may have moved
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      const begin = performance.now();
      this.painter.draw(this.scroller.clientWidth, this.scroller.clientHeight);
      this.painter.overview.draw(document.documentElement.clientWidth);
      this.lastFrame = performance.now() - begin;
    });
  }

  // --- under the pointer ---

  rowAt(y) {
    return y < RULER ? null : this.visibleRows(this.chart.clientHeight)
      .find(row => y < this.painter.top(row) + row.height) ?? null;
  }
  // What runs or waits in a row at a moment: its greenlet, its run (or null), begin and end.
  at(row, time) {
    const { model, painter } = this;
    if (row.kind === "thread") {
      const { thread } = row, k = after(thread.start, time, 0, thread.count) - 1;
      return k < 0 || time > thread.last ? null
        : { greenlet: thread.who[k], run: { thread, k }, begin: thread.start[k], end: thread.start[k + 1] };
    }
    const lane = row.kind === "group" ? row.group.lane : model.lanes[row.greenlet];
    // Short runs count as two pixels wide.
    const near = painter.time(NAMES + 2) - painter.time(NAMES);
    const i = lane.after(time + near) - 1;
    const k = i >= lane.from ? lane.order[i] : -1;
    if (k >= 0 && (time <= lane.end(i) || time - lane.end(i) < near)) {
      return { greenlet: lane.thread.who[k], run: { thread: lane.thread, k }, begin: lane.start(i), end: lane.end(i) };
    }
    const [born, died] = this.life(row);
    if (time < born || time > died) return null;
    return { greenlet: row.greenlet, run: null, begin: k >= 0 ? lane.end(i) : born,
      end: i + 1 < lane.to ? lane.start(i + 1) : died, isGroup: row.kind === "group" };
  }
}
