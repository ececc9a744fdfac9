// The recording as typed arrays. Times are nanoseconds since its beginning.
//
// A thread has *runs*: run k lasts from start[k] to start[k + 1], and who[k] is the greenlet that
// runs. So run k has been switched to by who[k - 1]. what[k] says how: THROWN, and FINISHED if
// who[k - 1] has finished with this switch.
"use strict";

const THROWN = 1, FINISHED = 2;
const MAIN = 1, SCHEDULER = 2, WAS_THERE = 4, HAS_FINISHED = 8;

async function unpack(text, packed) {
  let bytes;
  if (Uint8Array.fromBase64) {
    bytes = Uint8Array.fromBase64(text);
  } else {
    const characters = atob(text);
    bytes = new Uint8Array(characters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  }
  if (packed === "plain") return bytes.buffer;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(packed));
  return new Response(stream).arrayBuffer();
}

// The index of the first of items[low] to items[high - 1] that is greater than `value`, or high.
function after(items, value, low, high) {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (items[middle] > value) high = middle; else low = middle + 1;
  }
  return low;
}

// Some of a thread's runs: run order[i] for from <= i < to. sum[i] is the time that the ones before
// have run.
class Lane {
  constructor(thread, order, sum, from, to) {
    Object.assign(this, { thread, order, sum, from, to });
  }
  get runs() { return this.to - this.from; }
  start(i) { return this.thread.start[this.order[i]]; }
  end(i) { return this.thread.start[this.order[i] + 1]; }
  get time() {
    const last = this.to - 1;
    return this.runs ? this.sum[last] + this.end(last) - this.start(last) : 0;
  }
  // The index of the first run that begins after `time`.
  after(time, low = this.from) {
    let high = this.to;
    const { start } = this.thread, { order } = this;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (start[order[middle]] > time) high = middle; else low = middle + 1;
    }
    return low;
  }
  // How long these have run until `time`, if i is after(time).
  until(time, i) {
    if (i === this.from) return 0;
    return this.sum[i - 1] + Math.min(time, this.end(i - 1)) - this.start(i - 1);
  }
  // The position of a run of the thread, or -1.
  find(run) {
    const i = this.after(this.thread.start[run]) - 1;
    for (let j = i; j >= this.from && this.start(j) === this.thread.start[run]; j--) {
      if (this.order[j] === run) return j;
    }
    return -1;
  }
}

// Sorts a thread's runs by key[who], in the order of time; a Lane in lanes[number] for each number
// of `numbers`, which are the keys of this thread. place[number] is its position there.
function lanesBy(thread, key, numbers, place, lanes) {
  const { count, who, start } = thread, keys = numbers.length;
  const from = new Uint32Array(keys + 1);
  for (let k = 0; k < count; k++) from[place[key[who[k]]] + 1]++;
  for (let i = 0; i < keys; i++) from[i + 1] += from[i];
  const order = new Uint32Array(count), sum = new Float64Array(count);
  const next = from.slice(0, keys), total = new Float64Array(keys);
  for (let k = 0; k < count; k++) {
    const one = place[key[who[k]]], at = next[one]++;
    order[at] = k;
    sum[at] = total[one];
    total[one] += start[k + 1] - start[k];
  }
  numbers.forEach((number, i) => {
    lanes[number] = new Lane(thread, order, sum, from[i], from[i + 1]);
  });
}

// The numbers from 0 to count - 1 by thread, and the position of each there.
function byThread(threads, count, threadOf) {
  const lists = threads.map(() => []), place = new Uint32Array(count);
  for (let i = 0; i < count; i++) place[i] = lists[threadOf(i)].push(i) - 1;
  return [lists, place];
}

async function readThread(data, packed, duration, index) {
  const bytes = new Uint8Array(await unpack(data.data, packed));
  const events = data.count, first = data.running === null ? 0 : 1;
  const thread = { index, name: data.name, native: data.native, begin: data.begin, end: data.end,
    cpu: data.cpu };
  const last = data.completeUntil ?? data.end ?? duration;
  const count = events + first;
  const start = new Float64Array(count + 1);
  const who = new Uint32Array(count), what = new Uint8Array(count);
  if (first) {
    start[0] = data.begin;
    who[0] = data.running;
  }
  let time = 0;
  const plane = (number, i) => bytes[number * events + i];
  for (let i = 0, k = first; i < events; i++, k++) {
    const low = plane(0, i) | plane(1, i) << 8 | plane(2, i) << 16;
    const high = plane(3, i) + plane(4, i) * 0x100 + plane(5, i) * 0x10000 +
      plane(6, i) * 0x1000000 + plane(7, i) * 0x100000000;
    what[k] = low & 3;
    time += (high * 0x1000000 + (low & ~3)) / 4;
    start[k] = time;
    who[k] = plane(8, i) | plane(9, i) << 8 | plane(10, i) << 16 | plane(11, i) << 24;
  }
  start[count] = Math.max(last, count ? start[count - 1] : 0);
  return Object.assign(thread, {
    count, start, who, what, last, switches: events, lost: data.lost,
    completeUntil: data.completeUntil,
  });
}

async function readModel(data) {
  const { packed, strings, greenlets } = data;
  const column = async name => new Uint32Array(await unpack(greenlets[name], packed));
  const [name, func, type, threadOf, flags] = await Promise.all(
    ["name", "function", "type", "thread", "flags"].map(column));
  const id = new Float64Array(await unpack(greenlets.id, packed));
  const threads = [];
  for (const [index, one] of data.threads.entries()) {
    threads.push(await readThread(one, packed, data.duration, index));
  }
  const count = greenlets.count;
  // Greenlets of a thread with the same name and class are a group.
  const group = new Uint32Array(count), groups = [], found = new Map();
  // The same in all threads, for the colours.
  const color = new Uint32Array(count), kinds = new Map();
  for (let g = 0; g < count; g++) {
    const special = flags[g] & (MAIN | SCHEDULER) ? `!${g}` : "";
    const key = `${threadOf[g]} ${name[g]} ${type[g]} ${special}`;
    let number = found.get(key);
    if (number === undefined) {
      number = groups.length;
      found.set(key, number);
      groups.push({ number, thread: threadOf[g], name: strings[name[g]], members: [], first: g });
    }
    if (!special) {
      const kind = `${name[g]} ${type[g]}`;
      color[g] = kinds.get(kind) ?? kinds.set(kind, kinds.size).size - 1;
    }
    group[g] = number;
    groups[number].members.push(g);
  }
  const lanes = new Array(count), groupLanes = new Array(groups.length);
  const every = Uint32Array.from({ length: count }, (_, g) => g);
  const [mine, place] = byThread(threads, count, g => threadOf[g]);
  const [groupsOf, groupPlace] = byThread(threads, groups.length, i => groups[i].thread);
  for (const thread of threads) {
    thread.greenlets = mine[thread.index];
    thread.groups = groupsOf[thread.index].map(i => groups[i]);
    lanesBy(thread, every, thread.greenlets, place, lanes);
    lanesBy(thread, group, groupsOf[thread.index], groupPlace, groupLanes);
    // How long others than schedulers have run, before each run.
    thread.busy = new Float64Array(thread.count + 1);
    thread.idle = 0;
    for (let k = 0; k < thread.count; k++) {
      const length = thread.start[k + 1] - thread.start[k];
      const idle = flags[thread.who[k]] & SCHEDULER;
      thread.busy[k + 1] = thread.busy[k] + (idle ? 0 : length);
      if (idle) thread.idle += length;
    }
  }
  for (const one of groups) one.lane = groupLanes[one.number];
  const model = {
    ...data, count, name, func, type, threadOf, flags, id, threads, group, groups, color, lanes,
    label: g => strings[name[g]],
    functionOf: g => strings[func[g]],
    typeOf: g => strings[type[g]],
    // When it was alive, as far as the recording knows.
    born(g) {
      const lane = lanes[g], thread = threads[threadOf[g]];
      return flags[g] & WAS_THERE || !lane.runs ? thread.begin : lane.start(lane.from);
    },
    died(g) {
      const lane = lanes[g], thread = threads[threadOf[g]];
      return flags[g] & HAS_FINISHED && lane.runs ? lane.end(lane.to - 1) : thread.last;
    },
  };
  return model;
}

// Whether the greenlet matches what was typed: a part of a name, #number, or an id as 0x…
function matches(model, g, text) {
  if (text.startsWith("#")) return `#${g}` === text;
  if (text.startsWith("0x")) return model.id[g].toString(16).includes(text.slice(2));
  return [model.label(g), model.functionOf(g), model.typeOf(g)].some(
    one => one != null && one.toLowerCase().includes(text));
}

// --- text ---

const UNITS = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]];

function duration(time) {
  const [size, unit] = UNITS.find(([size]) => time >= size * 0.9995) ?? UNITS[3];
  const value = time / size;
  const digits = unit === "ns" ? 0 : value < 10 ? 3 : value < 100 ? 2 : 1;
  return `${value.toFixed(digits)} ${unit}`;
}

// A moment, as exact as `step` demands.
function moment(time, step, largest) {
  const [size, unit] = UNITS.find(([size]) => largest >= size * 10) ?? UNITS[2];
  const digits = Math.max(0, Math.ceil(-Math.log10(step / size) - 1e-9));
  return `${(time / size).toFixed(digits)} ${unit}`;
}

const number = value => value.toLocaleString("en");
const plural = (count, what) =>
  `${number(count)} ${what}${count === 1 ? "" : what.endsWith("ch") ? "es" : "s"}`;
const percent = share => (share > 0 && share < 0.0005 ? "< 0.1 %"
  : `${(Math.min(share, 1) * 100).toFixed(share < 0.0995 ? 1 : 0)} %`);
