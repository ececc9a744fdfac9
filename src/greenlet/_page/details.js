// The panel at the side: what is known of the thread, the group or the greenlet that is chosen.
// Names are text from anywhere, so they go into text nodes, never into HTML.
"use strict";

const MOST_LISTED = 8;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

class Details {
  constructor(model, app) {
    this.model = model;
    this.app = app;
    this.panel = document.getElementById("details");
  }

  show() {
    const { chosen, run } = this.app;
    const parts = !chosen ? this.ofAll()
      : chosen.kind === "thread" ? this.ofThread(chosen.thread)
        : chosen.kind === "group" ? this.ofGroup(chosen.group) : this.ofGreenlet(chosen.greenlet, run);
    this.panel.replaceChildren(...parts);
  }

  // --- parts ---

  heading(text, color, ...badges) {
    const parts = color ? [element("i", { className: "swatch", style: `background:${color}` })] : [];
    return element("h2", {}, ...parts, element("span", { textContent: text }),
      ...badges.filter(Boolean).map(one => element("span", { className: "badge", textContent: one })));
  }
  facts(...pairs) {
    const list = element("dl");
    for (const [name, value] of pairs) {
      if (value !== null && value !== undefined) {
        list.append(element("dt", { textContent: name }), element("dd", {}, value));
      }
    }
    return list;
  }
  link(text, action) {
    return element("button", { className: "link", type: "button", textContent: text, onclick: action });
  }
  greenletLink(g) {
    return this.link(`${this.model.label(g)} #${g}`, () => this.app.chooseGreenlet(g, { reveal: true }));
  }
  // The greenlets with the largest values of a Map, as a list.
  ranking(title, values, text) {
    const best = [...values].sort((a, b) => b[1] - a[1]);
    if (!best.length) return [];
    const list = element("ol");
    for (const [g, value] of best.slice(0, MOST_LISTED)) {
      list.append(element("li", {},
        element("i", { className: "swatch", style: `background:${this.app.painter.colorOf(g)}` }),
        this.greenletLink(g), element("span", { textContent: text(value) })));
    }
    if (best.length > MOST_LISTED) {
      list.append(element("li", {}, element("span", { textContent: `and ${number(best.length - MOST_LISTED)} more` })));
    }
    return [element("h3", { textContent: title }), list];
  }
  busiest(greenlets) {
    const { model } = this, values = new Map();
    for (const g of greenlets) if (!(model.flags[g] & SCHEDULER)) values.set(g, model.lanes[g].time);
    return this.ranking("Longest running", values, duration);
  }

  // --- what is chosen ---

  ofAll() {
    const { model } = this;
    const every = model.threads.flatMap(thread => thread.greenlets);
    return [
      this.heading("The recording"),
      element("p", { textContent: "Click a row or a block for details. Press ? for the keys." }),
      this.facts(
        ["Duration", duration(model.duration)],
        ["Threads", number(model.threads.length)],
        ["Greenlets", number(model.count)],
        ["Switches", number(model.switches)],
        ["Not recorded", model.lost ? number(model.lost) : null],
        ["Begun", new Date(model.startedAt * 1000).toLocaleString()],
        ["Process", String(model.process)],
      ),
      ...this.busiest(every),
    ];
  }

  ofThread(thread) {
    const span = Math.max(thread.last - thread.begin, 1);
    const busy = thread.busy[thread.count];
    return [
      this.heading(thread.name, null, "thread"),
      this.facts(
        ["Number", String(thread.native)],
        ["Greenlets", number(thread.greenlets.length)],
        ["Switches", number(thread.switches)],
        ["Not recorded", thread.lost ? number(thread.lost) : null],
        ["Switches a second", number(Math.round(thread.switches / span * 1e9))],
        ["Greenlets run", `${duration(busy)} (${percent(busy / span)})`],
        ["Schedulers", thread.idle ? `${duration(thread.idle)} (${percent(thread.idle / span)})` : null],
        ["On the processor", thread.cpu === null ? null : `${duration(thread.cpu)} (${percent(thread.cpu / span)})`],
        ["Ended", thread.end === null ? null : duration(thread.end)],
      ),
      ...this.busiest(thread.greenlets),
    ];
  }

  ofGroup(group) {
    const { model, app } = this, { lane } = group;
    const finished = group.members.filter(g => model.flags[g] & HAS_FINISHED).length;
    return [
      this.heading(group.name, app.painter.colorOf(group.members[0]), "group"),
      this.facts(
        ["Greenlets", number(group.members.length)],
        ["Finished", number(finished)],
        ["Class", model.typeOf(group.members[0])],
        ["Runs", number(lane.runs)],
        ["Running in all", duration(lane.time)],
        ["Mean run", lane.runs ? duration(lane.time / lane.runs) : null],
      ),
      ...this.busiest(group.members),
    ];
  }

  ofGreenlet(g, run) {
    const { model, app } = this, { flags } = model;
    const lane = model.lanes[g], { thread } = lane;
    const [born, died] = [model.born(g), model.died(g)];
    let longest = 0, longestWait = 0, thrown = 0, longestAt = lane.from;
    const callers = new Map(), callees = new Map();
    const count = (map, key) => map.set(key, (map.get(key) ?? 0) + 1);
    for (let i = lane.from; i < lane.to; i++) {
      const k = lane.order[i], length = lane.end(i) - lane.start(i);
      if (length > longest) [longest, longestAt] = [length, i];
      if (i > lane.from) longestWait = Math.max(longestWait, lane.start(i) - lane.end(i - 1));
      if (thread.what[k] & THROWN) thrown++;
      if (k > 0) count(callers, thread.who[k - 1]);
      if (k + 1 < thread.count) count(callees, thread.who[k + 1]);
    }
    const starter = lane.runs && lane.order[lane.from] > 0 && !(flags[g] & WAS_THERE)
      ? thread.who[lane.order[lane.from] - 1] : null;
    const name = model.label(g), func = model.functionOf(g);
    const times = value => `${number(value)} ×`;
    return [
      this.heading(name, app.painter.colorOf(g), `#${g}`, flags[g] & MAIN && "main",
        flags[g] & SCHEDULER && "scheduler"),
      ...run ? this.ofRun(g, run) : [],
      this.facts(
        ["Function", func && func !== name ? func : null],
        ["Class", model.typeOf(g)],
        ["Thread", this.link(thread.name, () => app.choose({ kind: "thread", thread }))],
        ["Started", flags[g] & WAS_THERE || flags[g] & MAIN ? "before" : `at ${duration(born)}`],
        ["by", starter === null ? null : this.greenletLink(starter)],
        ["Finished", flags[g] & HAS_FINISHED ? `at ${duration(died)}` : "no"],
        ["Running", `${duration(lane.time)} (${percent(lane.time / Math.max(died - born, 1))})`],
        ["Runs", number(lane.runs)],
        ["Longest run", lane.runs ? this.link(duration(longest),
          () => app.chooseRun(thread, lane.order[longestAt], { reveal: true })) : null],
        ["Longest wait", lane.runs > 1 ? duration(longestWait) : null],
        ["Exceptions into it", thrown ? number(thrown) : null],
        ["Address", `0x${model.id[g].toString(16)}`],
      ),
      ...this.ranking("Switched to by", callers, times),
      ...this.ranking("Then ran", callees, times),
    ];
  }

  ofRun(g, { thread, k }) {
    const { model, app } = this, lane = model.lanes[g], i = lane.find(k);
    const [from, to] = [k > 0 ? thread.who[k - 1] : null, k + 1 < thread.count ? thread.who[k + 1] : null];
    const step = (text, at) => element("button", {
      type: "button", textContent: text, disabled: at < lane.from || at >= lane.to,
      onclick: () => app.chooseRun(thread, lane.order[at], { reveal: true }),
    });
    const go = other => element("span", {}, this.link(`${model.label(other)} #${other}`,
      () => app.chooseRun(thread, other === from ? k - 1 : k + 1, { reveal: true })));
    const finished = k + 1 < thread.count && thread.what[k + 1] & FINISHED;
    return [
      element("h3", { textContent: `Run ${number(i - lane.from + 1)} of ${number(lane.runs)}` }),
      this.facts(
        ["From", moment(thread.start[k], 1, Math.max(thread.start[k], 1))],
        ["Length", duration(thread.start[k + 1] - thread.start[k])],
        [thread.what[k] & THROWN ? "Exception from" : "Switched to by", from === null ? null : go(from)],
        [finished ? "Finished; then" : "Then", to === null ? null : go(to)],
      ),
      element("div", { className: "row" }, step("‹ run before", i - 1), step("next run ›", i + 1)),
    ];
  }
}
