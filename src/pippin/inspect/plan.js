// The profile, the plan, and the arithmetic of `pippin.inspect.profile.totals`.

const profile = JSON.parse(document.getElementById("profile").textContent);
const operations = profile.operations;
const projections = operations.filter((op) => op.kind === "projection");
operations.forEach((op, index) => (op.index = index));
projections.forEach((op, index) => (op.place = index));
const weights = projections.reduce((sum, op) => sum + op.weights, 0);
const hasLoss = profile.loss.source !== "none";
const asItIs = projections.map((op) => op.bits);

// What the page shows; listeners run after every change.
const state = { bits: asItIs.slice(), pinned: new Set(), mode: "token", selected: null, heat: "ms" };
const listeners = [];
const changed = () => listeners.forEach((listener) => listener());

const can = (op, bits) => String(bits) in op.options;
const sameBits = (a, b) => a.every((bits, index) => bits === b[index]);

function totals(bits) {
  const table = bits.some((b) => b) ? "8" : "0";
  let stored = 0, own = 0, loss = hasLoss ? 0 : null;
  const ms = { token: profile.pass_ms.token.median, prompt: profile.pass_ms.prompt.median };
  for (const op of operations) {
    stored += op.stored_bytes[table];
    if (op.kind === "projection") {
      const option = op.options[bits[op.place]];
      own += option.bytes;
      if (loss !== null) loss += option.rise;
    }
    for (const mode in ms) ms[mode] += extraMs(op, bits, mode);
  }
  const file = profile.file;
  const bytes = own + stored + (sameBits(bits, asItIs) ? file.header_bytes : file.packed_header_bytes);
  return {
    projection_bytes: own, tensor_bytes: own + stored, file_bytes: bytes, bits_per_weight: (8 * own) / weights,
    bits_per_parameter: (8 * bytes) / profile.parameters, ms, tokens_per_s: 1000 / ms.token, loss,
  };
}

/** Milliseconds that a plan adds to an operation of the model as it is. */
function extraMs(op, bits, mode) {
  if (op.kind === "projection") return op.options[bits[op.place]].ms[mode] - op.options[op.bits].ms[mode];
  if (op.table_ms && bits.some((b) => b)) return op.table_ms["8"][mode] - op.table_ms["0"][mode];
  return 0;
}

/** Everything that the table says of an operation under the plan. */
function figures(op) {
  const { bits, mode } = state;
  const table = bits.some((b) => b) ? "8" : "0";
  const option = op.kind === "projection" ? op.options[bits[op.place]] : null;
  const stored = op.stored_bytes[table] + (option ? option.bytes : 0);
  const read = option ? stored : op.read_bytes[mode][table];
  const e = profile.energy;
  const picojoules = e.flop_pj * op.flops[mode] + e.cache_pj_per_byte * op.activation_bytes[mode]
    + e.dram_pj_per_byte * (read + op.kv_bytes[mode]);
  return {
    order: op.index, name: op.name, kind: op.kind, shape: op.shape, bits: shownBits(op, table),
    parameters: op.parameters, stored, activations: op.activation_bytes[mode], kv: op.kv_bytes[mode],
    flops: op.flops[mode], ms: Math.max(0, op.ms[mode].median + extraMs(op, bits, mode)),
    spread: (op.ms[mode].high - op.ms[mode].low) / 2, energy: picojoules / 1e6,
    loss: option && hasLoss ? option.rise : null,
  };
}

function shownBits(op, table) {
  if (op.kind === "projection") return state.bits[op.place] || profile.float_bits;
  if (op.kind === "embedding" || op.kind === "head") return table === "8" || !profile.float_bits ? 8 : profile.float_bits;
  return null;
}

// Changes, undo, and the address

const past = [], future = [];
const snapshot = () => ({ bits: state.bits.slice(), pinned: new Set(state.pinned) });

function restore(kept) {
  state.bits = kept.bits.slice();
  state.pinned = new Set(kept.pinned);
}

/** Change the plan by `edit`; one step of undo, or a part of the last one with `goesOn`. */
function change(edit, goesOn = false) {
  const before = snapshot();
  edit();
  const pins = state.pinned.size === before.pinned.size && [...state.pinned].every((place) => before.pinned.has(place));
  if (sameBits(before.bits, state.bits) && pins) return;
  if (!goesOn) past.push(before);
  future.length = 0;
  changed();
  remember();
}

function step(from, to) {
  if (!from.length) return;
  to.push(snapshot());
  restore(from.pop());
  changed();
  remember();
}

function setBits(ops, bits) {
  change(() => {
    for (const op of ops) {
      if (!can(op, bits)) continue;
      state.bits[op.place] = bits;
      state.pinned.add(op.place);
    }
  });
}

function setAll(bits) {
  change(() => {
    state.bits = bits;
    state.pinned.clear();
  });
}

// One letter a projection: 0, 2 or 4, and a, b, c for the same pinned.
const LETTERS = { 0: "0a", 2: "2b", 4: "4c" };
const planText = () => state.bits.map((bits, place) => LETTERS[bits][state.pinned.has(place) ? 1 : 0]).join("");

function remember() {
  history.replaceState(null, "", "#plan=" + planText());
}

function readAddress() {
  const text = new URLSearchParams(location.hash.slice(1)).get("plan");
  if (text === null || text === planText()) return;
  const bits = [], pinned = new Set();
  for (const letter of text) {
    const value = Object.keys(LETTERS).find((key) => LETTERS[key].includes(letter));
    if (value !== undefined && LETTERS[value][1] === letter) pinned.add(bits.length);
    bits.push(value === undefined ? NaN : Number(value));
  }
  if (bits.length !== projections.length || bits.some((b, place) => !can(projections[place], b))) {
    say("The plan in the address is not one of this model, and was left out.");
    return;
  }
  change(() => restore({ bits, pinned }));
}

// The best plans

const MOST_POINTS = 4000;
let best = null; // {key, points}: for the pins that `key` names

/** All plans of 4 and 2 bits that are best for their size, smallest saving first: exact, as expected losses add up.
 *
 * Projections that save the same number of bytes are ranked by what they cost, so a plan is a count for each saving.
 * Sums of the savings so far are kept while no other saves more and costs less; of more than MOST_POINTS, the best in
 * each of as many equal ranges.
 */
function frontier() {
  const free = projections.filter((op) => !state.pinned.has(op.place));
  const key = [...state.pinned].map((place) => place + ":" + state.bits[place]).sort().join();
  if (best && best.key === key) return best.points;
  const groups = new Map();
  let bytes = 0, loss = 0;
  for (const op of projections) {
    const option = op.options[state.pinned.has(op.place) ? state.bits[op.place] : 4];
    bytes += option.bytes;
    loss += option.rise;
  }
  for (const op of free) {
    const saved = op.options[4].bytes - op.options[2].bytes;
    if (!groups.has(saved)) groups.set(saved, []);
    groups.get(saved).push(op);
  }
  const cost = (op) => op.options[2].rise - op.options[4].rise;
  let points = [{ saved: 0, cost: 0, from: null, ops: [] }];
  for (const [saved, ops] of groups) {
    ops.sort((a, b) => cost(a) - cost(b));
    const sums = [0];
    for (const op of ops) sums.push(sums[sums.length - 1] + cost(op));
    const all = [];
    for (const from of points) {
      sums.forEach((sum, count) => all.push({ saved: from.saved + saved * count, cost: from.cost + sum, from, ops, count }));
    }
    points = thin(undominated(all));
  }
  points = points.map((p) => ({ ...p, bytes: bytes - p.saved, loss: loss + p.cost, bpw: (8 * (bytes - p.saved)) / weights }));
  best = { key, points };
  return points;
}

function undominated(points) {
  points.sort((a, b) => b.saved - a.saved || a.cost - b.cost);
  let least = Infinity;
  return points.filter((p) => p.cost < least && ((least = p.cost), true)).reverse();
}

function thin(points) {
  if (points.length <= MOST_POINTS) return points;
  const size = points[points.length - 1].saved / MOST_POINTS;
  const kept = points.filter((p, i) => i === 0 || Math.floor(points[i - 1].saved / size) !== Math.floor(p.saved / size));
  return kept.includes(points[points.length - 1]) ? kept : [...kept, points[points.length - 1]];
}

/** The bits of a point of the frontier. */
function bitsOf(point) {
  const bits = state.bits.map((b, place) => (state.pinned.has(place) ? b : 4));
  for (let at = point; at && at.from; at = at.from) {
    for (const op of at.ops.slice(0, at.count)) bits[op.place] = 2;
  }
  return bits;
}

/** The point with the least loss within a budget in bits per weight. */
function within(bpw) {
  const points = frontier();
  return points.find((p) => p.bpw <= bpw + 1e-9) || points[points.length - 1];
}

// Words and numbers

const THIN = "\u202f", DASH = "\u2013";
function decimals(value, digits) {
  if (value === null || !Number.isFinite(value)) return DASH;
  const [whole, part] = Math.abs(value).toFixed(digits).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, THIN) + (part ? "." + part : "");
  return value < 0 && Number(value.toFixed(digits)) !== 0 ? "\u2212" + grouped : grouped;
}
const three = (v) => decimals(v, Math.abs(v) < 9.995 ? 2 : Math.abs(v) < 99.95 ? 1 : 0);
function scaled(value, units, base) {
  let size = 1, unit = units[0];
  for (const next of units.slice(1)) {
    if (Math.abs(value) < size * base * 0.9995) break;
    size *= base;
    unit = next;
  }
  const number = size === 1 && Number.isInteger(value) ? decimals(value, 0) : three(value / size);
  return unit ? number + THIN + unit : number;
}
const asBytes = (v) => scaled(v, ["B", "kB", "MB", "GB", "TB"], 1000);
const asCount = (v) => scaled(v, ["", "k", "M", "G", "T"], 1000);
const asMs = (v) => (v < 0.9995 ? scaled(v * 1000, ["µs"], 1000) : scaled(v, ["ms"], 1000));
const asPercent = (share) => decimals(100 * share, Math.abs(share) < 0.0995 ? 1 : 0) + THIN + "%";
const asEnergy = (v) => scaled(v * 1e6, ["pJ", "nJ", "µJ", "mJ", "J"], 1000);
const asLoss = (v) => (v === null ? DASH : v === 0 ? "0" : Math.abs(v) < 0.001 ? v.toExponential(1) : decimals(v, 4));

let saying = 0; // the announcement of the totals that waits for the changes to end
function say(words) {
  clearTimeout(saying);
  document.getElementById("said").textContent = words;
  document.getElementById("plan-note").textContent = words;
}

const SVG = "http://www.w3.org/2000/svg";
/** An element with attributes and children; text is always text. */
function make(name, attributes = {}, ...children) {
  const svg = make.svg.has(name);
  const made = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
make.svg = new Set(["svg", "g", "rect", "path", "text", "title", "circle", "line", "polyline", "polygon"]);
