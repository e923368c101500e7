// The network: a column for each layer, from top to bottom, and the residual stream beside it.

const PITCH = 26, HEIGHT = 17, TOP = 26;
let nodes = new Map(), nodeCurrent = null;

// Place of an operation in its layer: row, and which of how many side by side. In the order of `operations`.
function rowsOf(ops) {
  const found = [];
  for (const op of ops) {
    const last = op.name.split(".").pop();
    const beside = { k: "q", v: "q", up: "gate" }[last];
    if (beside) found[found.length - 1].push(op);
    else found.push([op]);
  }
  return found;
}

function buildGraph() {
  const columns = [];
  for (const op of operations) {
    const last = columns[columns.length - 1];
    if (last && last.layer === op.layer && op.layer !== null) last.ops.push(op);
    else if (last && op.layer === null && last.layer === null) last.ops.push(op);
    else columns.push({ layer: op.layer, ops: [op] });
  }
  const wide = Math.max(43, Math.min(112, Math.floor(1180 / columns.length)));
  const inner = wide - 12, left = 66;
  const tall = Math.max(...columns.map((column) => rowsOf(column.ops).length));
  const size = [left + columns.length * wide + 10, TOP + tall * PITCH + 16];
  const edges = make("g", { class: "edges" }), drawn = make("g"), labels = make("g");
  const middle = columns.find((column) => column.layer !== null);
  rowsOf(middle.ops).forEach((row, at) => {
    const words = row.map((op) => op.name.split(".").pop()).map(short).join(" ");
    labels.append(make("text", { x: left - 12, y: TOP + at * PITCH + 12.5, "text-anchor": "end", class: "tick" }, words));
  });
  const bottomOf = (column) => TOP + (rowsOf(column.ops).length - 1) * PITCH + HEIGHT;
  columns.forEach((column, number) => {
    const x = left + number * wide, centre = x + inner / 2;
    const title = column.layer === null ? (number ? "out" : "in") : String(column.layer);
    labels.append(make("text", { x: centre, y: 14, "text-anchor": "middle", class: "tick" }, title));
    const lines = rowsOf(column.ops);
    lines.forEach((row, at) => {
      const y = TOP + at * PITCH, width = (inner - 3 * (row.length - 1)) / row.length;
      row.forEach((op, index) => {
        const nx = x + index * (width + 3);
        drawn.append(node(op, nx, y, width));
        const above = at ? lines[at - 1] : [];
        const each = above.length === row.length && row.length > 1 ? [above[index]] : above;
        for (const from of each) edges.append(edge(middleOf(nodes.get(from)), nx + width / 2, y));
      });
    });
    if (column.layer !== null) {
      lines.forEach((row, at) => {
        if (row[0].kind !== "add") return;
        const start = lines.slice(0, at).findLastIndex((other) => other[0].kind === "add");
        const from = start < 0 ? TOP - 5 : TOP + start * PITCH + HEIGHT / 2, y = TOP + at * PITCH + HEIGHT / 2;
        const side = x - 4;
        edges.append(make("path", { d: `M${start < 0 ? centre : x} ${from} H${side} V${y} H${x}`, class: "residual" }));
      });
    }
    if (number + 1 < columns.length) {
      const gap = x + inner + 5, next = centre + wide;
      edges.append(make("path", { d: `M${centre} ${bottomOf(column)} V${bottomOf(column) + 6} H${gap} V${TOP - 6} H${next} V${TOP}` }));
    }
  });
  const svg = make("svg", { width: size[0], height: size[1], viewBox: `0 0 ${size[0]} ${size[1]}`, role: "group", "aria-label": "Graph of the network; arrow keys move" });
  svg.append(edges, drawn, labels);
  svg.addEventListener("keydown", onGraphKey);
  document.getElementById("graph").append(svg);
  nodeFocus(operations[0]);
}

const short = (word) => ({ attention_norm: "norm", ffn_norm: "norm", attention_add: "+", ffn_add: "+", mix: "attention" })[word] || word;
const middleOf = (n) => [n.x + n.width / 2, n.y + HEIGHT];

function edge([x1, y1], x2, y2) {
  return make("path", { d: x1 === x2 ? `M${x1} ${y1} V${y2}` : `M${x1} ${y1} C${x1} ${y1 + 6} ${x2} ${y2 - 6} ${x2} ${y2}` });
}

function node(op, x, y, width) {
  const label = make("text", { x: x + width / 2, y: y + 12.5, "text-anchor": "middle" });
  const title = make("title");
  const group = make("g", { class: "node", role: "button", tabindex: "-1", "data-index": op.index },
    make("rect", { x, y, width, height: HEIGHT, rx: 3 }), label, title);
  group.addEventListener("click", () => select(op));
  group.addEventListener("focus", () => nodeFocus(op));
  nodes.set(op, { group, label, title, x, y, width });
  return group;
}

function nodeFocus(op) {
  if (nodeCurrent) nodes.get(nodeCurrent).group.setAttribute("tabindex", "-1");
  nodeCurrent = op;
  nodes.get(op).group.setAttribute("tabindex", "0");
}

function updateGraph(found) {
  const value = (f) => Math.max(0, f[state.heat] || 0);
  const most = Math.max(...found.map(value)) || 1;
  const total = found.reduce((sum, f) => sum + value(f), 0) || 1;
  for (const op of operations) {
    const { group, label, title, width } = nodes.get(op);
    const f = found[op.index], share = value(f) / total;
    group.style.setProperty("--heat", Math.sqrt(value(f) / most));
    const bits = f.bits === null ? "" : `, ${f.bits} bits`;
    const words = `${op.name}${bits}: ${asPercent(share)}`;
    if (title.textContent !== words) {
      title.textContent = words;
      group.setAttribute("aria-label", words);
    }
    const text = [width > 70 ? short(op.name.split(".").pop()) : "", f.bits === null ? "" : f.bits].join(" ").trim();
    if (label.textContent !== text) label.textContent = text;
    group.classList.toggle("changed", op.kind === "projection" && state.bits[op.place] !== op.bits);
  }
  document.getElementById("heat-legend").replaceChildren(
    make("span", {}, "0"), make("i", { "aria-hidden": "true" }), make("span", {}, asPercent(most / total)));
}

function onGraphKey(event) {
  const target = event.target.closest(".node");
  if (!target || event.ctrlKey || event.metaKey || event.altKey) return;
  const op = operations[Number(target.dataset.index)];
  const sibling = (by) => {
    if (op.layer === null) return operations[op.index + by];
    return operations.find((o) => o.name === op.name.replace(`.${op.layer}.`, `.${op.layer + by}.`) && o.layer === op.layer + by);
  };
  const moves = {
    ArrowDown: () => operations[op.index + 1], ArrowUp: () => operations[op.index - 1],
    ArrowRight: () => sibling(1), ArrowLeft: () => sibling(-1),
  };
  if (event.key in moves) {
    const next = moves[event.key]();
    if (next) {
      nodes.get(next).group.focus();
      select(next);
    }
  } else if (event.key === "Enter" || event.key === " ") {
    select(op);
  } else if (["0", "2", "4"].includes(event.key) && op.kind === "projection") {
    setBits([op], Number(event.key));
  } else {
    return;
  }
  event.preventDefault();
}

function markNode() {
  for (const [op, { group }] of nodes) {
    group.classList.toggle("selected", op === state.selected);
    if (op === state.selected) group.setAttribute("aria-current", "true");
    else group.removeAttribute("aria-current");
  }
  if (!state.selected) return;
  nodeFocus(state.selected);
  const { x, width } = nodes.get(state.selected);
  const box = document.getElementById("graph");
  if (x < box.scrollLeft + 60 || x + width > box.scrollLeft + box.clientWidth) box.scrollLeft = x - box.clientWidth / 2;
}

/** The card of the selected operation. */
function showDetail(found) {
  const card = document.getElementById("detail");
  const op = state.selected;
  if (!op) {
    card.replaceChildren(make("p", { class: "dim" }, "Select an operation in the graph or in the table."));
    return;
  }
  const f = found[op.index];
  const facts = [
    ["kind", op.kind], ["shape", op.shape], ["parameters", asCount(op.parameters)], ["stored", asBytes(f.stored)],
    ["FLOPs", asCount(f.flops)], ["activations", asBytes(f.activations)], ["KV cache", asBytes(f.kv)],
    ["time here", `${asMs(f.ms)} (± ${asMs(f.spread)}), ${asPercent(f.share)}`], ["energy (model)", asEnergy(f.energy)],
  ];
  const list = make("dl", { class: "facts" }, ...facts.map(([k, v]) => make("div", {}, make("dt", {}, k), make("dd", {}, v))));
  card.replaceChildren(make("h3", {}, make("span", {}, op.name)), list);
  if (op.kind !== "projection") return;
  const options = make("div", { class: "options", role: "group", "aria-label": "bits of " + op.name });
  for (const bits of [0, 4, 2].filter((b) => can(op, b))) {
    const option = op.options[bits];
    const chosen = state.bits[op.place] === bits;
    const rise = option.rise === null ? "" : `, loss +${asLoss(option.rise)}`;
    const button = make("button", { type: "button", "aria-pressed": String(chosen) },
      make("b", {}, `${bits || profile.float_bits} bits`), make("span", {}, `${asBytes(option.bytes)}, ${asMs(option.ms[state.mode])}${rise}`));
    button.addEventListener("click", () => {
      setBits([op], bits);
      document.querySelector("#detail button[aria-pressed=true]").focus();
    });
    options.append(button);
  }
  card.append(options);
}
