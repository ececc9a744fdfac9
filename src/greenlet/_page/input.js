// Pointer, wheel, keys and buttons; and the start of the page.
"use strict";

const byId = id => document.getElementById(id);

class Input {
  constructor(app) {
    this.app = app;
    this.listenToChart();
    this.listenToOverview();
    this.listenToTools();
    document.addEventListener("keydown", event => this.onKey(event));
    new ResizeObserver(() => app.onChange()).observe(app.scroller);
  }

  listenToChart() {
    const { app } = this, { chart, scroller } = app;
    scroller.addEventListener("scroll", () => {
      if (Math.abs(scroller.scrollTop - app.scroll * app.squeeze) > 1) {
        app.scroll = scroller.scrollTop / app.squeeze;
        app.paint();
      }
    });
    chart.addEventListener("wheel", event => {
      event.preventDefault();
      const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? scroller.clientHeight : 1;
      const [x, y] = [event.deltaX * unit, event.deltaY * unit];
      if (event.shiftKey || event.offsetX < NAMES) {
        app.setScroll(app.scroll + (y || x));
      } else if (Math.abs(x) > Math.abs(y)) {
        app.pan(x / (app.painter.width - NAMES));
      } else {
        app.zoom(Math.exp(Math.max(Math.min(y, 200), -200) * 0.002), app.painter.time(event.offsetX));
      }
      this.hover(event);
    }, { passive: false });
    chart.addEventListener("pointerdown", event => this.grab(event));
    chart.addEventListener("pointermove", event => this.hover(event));
    chart.addEventListener("pointerleave", () => {
      app.pointer = null;
      app.paint();
    });
    chart.addEventListener("dblclick", event => {
      const row = app.rowAt(event.offsetY);
      if (!row) return;
      if (event.offsetX < NAMES) {
        app.zoomToChosen();
        return;
      }
      const found = app.at(row, app.painter.time(event.offsetX));
      if (found) app.zoomTo(found.begin, found.end);
    });
  }

  grab(event) {
    const { app } = this, { chart, painter } = app;
    if (event.button !== 0) return;
    chart.setPointerCapture(event.pointerId);
    const begin = { x: event.offsetX, y: event.offsetY, from: app.from, to: app.to, scroll: app.scroll };
    const isMeasure = begin.x >= NAMES && (event.shiftKey || begin.y < RULER);
    let hasMoved = false;
    const move = now => {
      hasMoved ||= Math.hypot(now.offsetX - begin.x, now.offsetY - begin.y) > 3;
      if (!hasMoved) return;
      if (isMeasure) {
        const clamp = x => Math.min(Math.max(painter.time(x), 0), app.model.duration);
        app.measure = { from: clamp(begin.x), to: clamp(now.offsetX) };
        app.paint();
        return;
      }
      const by = (begin.x - now.offsetX) / (painter.width - NAMES) * (begin.to - begin.from);
      if (begin.x >= NAMES) app.setView(begin.from + by, begin.to + by);
      app.setScroll(begin.scroll + begin.y - now.offsetY);
    };
    const end = now => {
      chart.removeEventListener("pointermove", move);
      chart.removeEventListener("pointerup", end);
      chart.removeEventListener("pointercancel", end);
      const { measure } = app;
      app.measure = null;
      if (measure && now.type === "pointerup") {
        app.setView(Math.min(measure.from, measure.to), Math.max(measure.from, measure.to));
      } else if (!hasMoved && now.type === "pointerup") {
        this.click(now);
      }
      app.paint();
    };
    chart.addEventListener("pointermove", move);
    chart.addEventListener("pointerup", end);
    chart.addEventListener("pointercancel", end);
  }

  click(event) {
    const { app } = this, row = app.rowAt(event.offsetY);
    if (!row) {
      app.choose(null);
    } else if (event.offsetX < NAMES) {
      if (row.canFold && event.offsetX < 40) app.fold(row);
      else app.choose({ kind: row.kind, [row.kind]: row[row.kind] });
    } else {
      const found = app.at(row, app.painter.time(event.offsetX));
      if (found?.run) app.chooseRun(found.run.thread, found.run.k);
      else app.choose({ kind: row.kind, [row.kind]: row[row.kind] });
    }
  }

  hover(event) {
    const { app } = this, { model, painter } = app, tip = byId("tip");
    app.pointer = { x: event.offsetX, y: event.offsetY };
    app.paint();
    const row = event.buttons ? null : app.rowAt(event.offsetY);
    app.chart.style.cursor = event.offsetX < NAMES && row ? "pointer"
      : event.offsetY < RULER ? "col-resize" : "default";
    if (!row) return;
    const lines = [];
    if (event.offsetX < NAMES) {
      lines.push(app.title(row), app.inWords({ kind: row.kind, [row.kind]: row[row.kind] }));
    } else {
      const found = app.at(row, painter.time(event.offsetX));
      if (!found) return;
      const length = duration(found.end - found.begin);
      if (found.run) {
        const { thread, k } = found.run, g = found.greenlet;
        lines.push(`${model.label(g)} #${g}`, `runs for ${length}`);
        if (k > 0) {
          const cause = thread.what[k] & THROWN ? "woken by an exception from" : "switched to by";
          lines.push(`${cause} ${model.label(thread.who[k - 1])} #${thread.who[k - 1]}`);
        }
        if (k + 1 < thread.count) {
          const end = thread.what[k + 1] & FINISHED ? "finishes; then" : "then";
          lines.push(`${end} ${model.label(thread.who[k + 1])} #${thread.who[k + 1]}`);
        }
      } else {
        lines.push(app.title(row), found.isGroup ? `none of them runs for ${length}` : `waits for ${length}`);
      }
    }
    tip.replaceChildren(...lines.map((line, i) => element(i ? "span" : "b", { textContent: line })));
    tip.hidden = false;
    const { innerWidth, innerHeight } = window;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6)}px`;
    tip.style.top = `${event.clientY + 18 + tip.offsetHeight > innerHeight
      ? event.clientY - 10 - tip.offsetHeight : event.clientY + 18}px`;
  }

  listenToOverview() {
    const { app } = this, canvas = byId("overview");
    const time = event => event.offsetX / canvas.clientWidth * app.model.duration;
    canvas.addEventListener("pointerdown", event => {
      canvas.setPointerCapture(event.pointerId);
      const begin = time(event), span = app.to - app.from;
      // In the part that is shown: moves it. Elsewhere: chooses another part.
      const isMove = begin >= app.from && begin <= app.to && span < app.model.duration * 0.98;
      const offset = begin - app.from;
      const move = now => {
        if (isMove) app.setView(time(now) - offset, time(now) - offset + span);
        else app.setView(Math.min(begin, time(now)), Math.max(begin, time(now)));
      };
      const end = now => {
        canvas.removeEventListener("pointermove", move);
        canvas.removeEventListener("pointerup", end);
        canvas.removeEventListener("pointercancel", end);
        if (!isMove && Math.abs(now.offsetX - event.offsetX) < 4) {
          app.setView(begin - span / 2, begin + span / 2);
        }
      };
      canvas.addEventListener("pointermove", move);
      canvas.addEventListener("pointerup", end);
      canvas.addEventListener("pointercancel", end);
    });
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      app.zoom(Math.exp(Math.max(Math.min(event.deltaY, 200), -200) * 0.002), time(event));
    }, { passive: false });
  }

  listenToTools() {
    const { app } = this, search = byId("search");
    search.addEventListener("input", () => {
      app.filter = search.value.trim().toLowerCase();
      app.scroll = 0;
      this.found = -1;
      app.layOut();
    });
    search.addEventListener("keydown", event => {
      if (event.key === "Enter" && app.found.length) {
        const count = app.found.length;
        this.found = ((this.found ?? -1) + (event.shiftKey ? -1 : 1) + count) % count;
        app.chooseGreenlet(app.found[this.found], { reveal: true });
        const [born, died] = app.life(app.chosen);
        if (died < app.from || born > app.to) app.zoomToChosen();
      } else if (event.key === "Escape") {
        search.value = "";
        search.dispatchEvent(new Event("input"));
        app.chart.focus();
      }
    });
    byId("order").addEventListener("change", event => {
      app.order = event.target.value;
      app.layOut();
    });
    byId("in").onclick = () => app.zoom(0.5);
    byId("out").onclick = () => app.zoom(2);
    byId("fit").onclick = () => app.setView(0, app.model.duration);
    byId("theme").onclick = () => this.toggleTheme();
    byId("help-button").onclick = () => byId("help").showModal();
  }

  toggleTheme() {
    const { dataset } = document.documentElement, { app } = this;
    dataset.theme = dataset.theme === "dark" ? "light" : "dark";
    app.painter.readColors();
    app.details.show();
    app.paint();
  }

  onKey(event) {
    const { app } = this;
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (isTyping) return;
    const isButton = event.target.tagName === "BUTTON";
    const page = app.scroller.clientHeight - 2 * RULER;
    const whole = app.model.duration;
    const fold = () => {
      const row = app.chosen && app.rowOf(app.chosen);
      if (row?.canFold) app.fold(row);
    };
    const actions = {
      ArrowUp: () => app.stepRow(-1), ArrowDown: () => app.stepRow(1),
      ArrowLeft: () => (event.shiftKey ? app.step(-1) : app.pan(-0.1)),
      ArrowRight: () => (event.shiftKey ? app.step(1) : app.pan(0.1)),
      PageUp: () => app.setScroll(app.scroll - page), PageDown: () => app.setScroll(app.scroll + page),
      Home: () => app.setView(0, app.to - app.from), End: () => app.setView(whole - (app.to - app.from), whole),
      "[": () => app.step(-1), "]": () => app.step(1),
      a: () => app.pan(-0.1), d: () => app.pan(0.1),
      "+": () => app.zoom(0.7), "=": () => app.zoom(0.7), w: () => app.zoom(0.7),
      "-": () => app.zoom(1 / 0.7), s: () => app.zoom(1 / 0.7),
      0: () => app.setView(0, whole), z: () => app.zoomToChosen(),
      t: () => this.toggleTheme(), "/": () => byId("search").focus(), "?": () => byId("help").showModal(),
      Escape: () => app.choose(null),
      ...isButton ? {} : { " ": fold, Enter: () => app.zoomToChosen() },
    };
    if (Object.hasOwn(actions, event.key)) {
      event.preventDefault();
      actions[event.key]();
    }
  }
}

async function begin() {
  const isDark = matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = isDark.matches ? "dark" : "light";
  const started = performance.now();
  const model = await readModel(JSON.parse(byId("recording").textContent));
  byId("recording").remove();
  byId("summary").textContent = [plural(model.switches, "switch"), plural(model.count, "greenlet"),
    plural(model.threads.length, "thread"), duration(model.duration)].join(" · ");
  byId("about").textContent = model.about;
  if (model.lost) {
    const warning = byId("warning");
    warning.textContent = `The limit was reached after ${duration(model.completeUntil)}: ` +
      `${plural(model.lost, "later switch")} are missing from there on.`;
    warning.hidden = false;
  }
  const app = new App(model), input = new Input(app);
  isDark.addEventListener("change", () => {
    if (document.documentElement.dataset.theme !== (isDark.matches ? "dark" : "light")) input.toggleTheme();
  });
  app.chart.focus({ preventScroll: true });
  // For tests, and for the curious in the console of the browser.
  Object.assign(window, { timeline: app, tookToLoad: performance.now() - started });
}

begin().catch(failure => {
  byId("summary").textContent = "";
  byId("warning").textContent = `This browser cannot show the recording: ${failure.message}`;
  byId("warning").hidden = false;
  throw failure;
});
