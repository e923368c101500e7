// The table of operations.

const COLUMNS = [
  ["order", "#", "place in the pass", (v) => v + 1],
  ["name", "operation", "", (v) => v],
  ["bits", "bits", "bits of one weight in the plan", (v) => (v === null ? "" : v)],
  ["ms", "time here", "median; for bits that were changed, as measured for this shape at these bits", asMs],
  ["spread", "±", "half the distance between the quartiles, as measured", asMs],
  ["share", "share", "of the time of the pass", asPercent],
  ["stored", "stored", "bytes in the file", (v) => (v ? asBytes(v) : "")],
  ["loss", "loss rise", "expected rise of the loss: " + (profile.loss.unit || "not known"), (v) => (v === null ? "" : asLoss(v))],
  ["parameters", "parameters", "learnt numbers", (v) => (v ? asCount(v) : "")],
  ["shape", "shape", "out × in of a matrix", (v) => v],
  ["flops", "FLOPs", "", (v) => (v ? asCount(v) : "")],
  ["energy", "energy (model)", "a model, not measured: see below", asEnergy],
  ["activations", "activations", "bytes in and out", asBytes],
  ["kv", "KV cache", "bytes read and written", (v) => (v ? asBytes(v) : "")],
  ["kind", "kind", "", (v) => v],
];
const LEFT = new Set(["name", "kind", "shape"]);
const sorting = { column: "order", falls: false };
let rows = [], body, current = 0;

function buildTable() {
  const head = make("tr");
  for (const [key, words, about] of COLUMNS) {
    const button = make("button", { type: "button", title: about || null }, words);
    button.addEventListener("click", () => sortBy(key));
    head.append(make("th", { scope: "col", "data-key": key, class: LEFT.has(key) ? "left" : null }, button));
  }
  body = make("tbody");
  rows = operations.map((op) => {
    const row = make("tr", { "data-index": op.index, tabindex: "-1" });
    const cells = {};
    for (const [key] of COLUMNS) {
      const cell = key === "name" ? make("th", { scope: "row" }) : make("td", { class: LEFT.has(key) ? "left" : null });
      if (key === "bits" && op.kind === "projection") cell.append(bitsChooser(op));
      if (key === "share") cell.append(make("i", { class: "meter", "aria-hidden": "true" }), make("span"));
      cells[key] = cell;
      row.append(cell);
    }
    row.addEventListener("click", () => select(op));
    row.addEventListener("focus", () => setCurrent(rows.find((r) => r.op === op)));
    body.append(row);
    return { op, row, cells, shown: true, values: {} };
  });
  const name = `Operations of ${profile.model}`;
  const table = make("table", { class: "numbers", "aria-label": name, "aria-describedby": "table-keys", "aria-rowcount": operations.length + 1 });
  table.append(make("thead", {}, head), body);
  table.addEventListener("keydown", onTableKey);
  document.getElementById("table").append(table);
}

function bitsChooser(op) {
  const group = make("span", { class: "bits", role: "group", "aria-label": "bits of " + op.name });
  for (const bits of [2, 4, 0]) {
    if (!can(op, bits)) continue;
    const words = bits || profile.float_bits;
    const button = make("button", { type: "button", "data-bits": bits, tabindex: "-1", "aria-label": `${words} bits` }, String(words));
    button.addEventListener("click", (event) => {
      event.stopPropagation();
      setBits([op], bits);
      select(op);
    });
    group.append(button);
  }
  return group;
}

function updateTable() {
  const found = operations.map(figures);
  const total = found.reduce((sum, f) => sum + f.ms, 0);
  found.forEach((f) => (f.share = total ? f.ms / total : 0));
  const most = Math.max(...found.map((f) => f.share)) || 1;
  for (const line of rows) {
    const { op, cells, row } = line;
    const values = (line.values = found[op.index]);
    for (const [key, , , format] of COLUMNS) {
      if (key === "bits" && op.kind === "projection") continue;
      const target = key === "share" ? cells.share.lastChild : cells[key];
      const text = String(format(values[key]));
      if (target.textContent !== text) target.textContent = text;
    }
    cells.share.firstChild.style.setProperty("--part", values.share / most);
    if (op.kind === "projection") {
      row.classList.toggle("changed", state.bits[op.place] !== op.bits);
      row.classList.toggle("pinned", state.pinned.has(op.place));
      for (const button of cells.bits.querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(Number(button.dataset.bits) === state.bits[op.place]));
      }
    }
  }
  if (!["order", "name", "kind", "shape", "parameters"].includes(sorting.column)) arrange();
  return found;
}

function sortBy(key) {
  const text = LEFT.has(key) || key === "order";
  sorting.falls = sorting.column === key ? !sorting.falls : !text;
  sorting.column = key;
  arrange();
}

function arrange() {
  const { column, falls } = sorting;
  const sign = falls ? -1 : 1;
  const compare = (a, b) => {
    const x = a.values[column], y = b.values[column];
    if (x === null || y === null) return (x === null) - (y === null) || a.op.index - b.op.index;
    const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
    return sign * order || a.op.index - b.op.index;
  };
  const before = rows.map((line) => line.op.index).join();
  const active = document.activeElement;
  rows.sort(compare);
  if (rows.map((line) => line.op.index).join() !== before) {
    body.append(...rows.map((line) => line.row));
    if (active && body.contains(active)) active.focus({ preventScroll: true });
  }
  for (const head of document.querySelectorAll("#table th[data-key]")) {
    head.setAttribute("aria-sort", head.dataset.key !== column ? "none" : falls ? "descending" : "ascending");
  }
}

function search() {
  const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const line of rows) {
    const text = `${line.op.name} ${line.op.kind} ${line.op.shape}`.toLowerCase();
    line.shown = words.every((word) => text.includes(word));
    line.row.hidden = !line.shown;
  }
  const count = rows.filter((line) => line.shown).length;
  document.getElementById("shown").textContent =
    words.length ? `${count} of ${rows.length} operations` : `${rows.length} operations`;
  setCurrent(rows.find((line) => line.op.index === current && line.shown) || rows.find((line) => line.shown));
}

/** The one row that Tab reaches. */
function setCurrent(line) {
  for (const other of rows) {
    const here = other === line;
    other.row.tabIndex = here ? 0 : -1;
    for (const button of other.cells.bits.querySelectorAll("button")) button.tabIndex = here ? 0 : -1;
  }
  if (line) current = line.op.index;
}

function onTableKey(event) {
  const row = event.target.closest("tbody tr");
  if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
  const shown = rows.filter((line) => line.shown);
  const at = shown.findIndex((line) => line.row === row);
  const moves = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: shown.length - 1 };
  if (event.key in moves) {
    const next = shown[Math.min(shown.length - 1, Math.max(0, moves[event.key]))];
    next.row.focus();
    select(next.op);
  } else if (["0", "2", "4"].includes(event.key) && shown[at].op.kind === "projection") {
    setBits([shown[at].op], Number(event.key));
  } else if (event.key === "Enter" && event.target === row) {
    select(shown[at].op);
  } else {
    return;
  }
  event.preventDefault();
}

/** Show the row of the selected operation inside the table's box, without moving the page. */
function markRow() {
  for (const line of rows) {
    if (state.selected === line.op) line.row.setAttribute("aria-current", "true");
    else line.row.removeAttribute("aria-current");
  }
  const line = rows.find((other) => other.op === state.selected);
  if (!line || !line.shown) return;
  setCurrent(line);
  const box = document.getElementById("table");
  const top = line.row.offsetTop - box.querySelector("thead").offsetHeight;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (line.row.offsetTop + line.row.offsetHeight > box.scrollTop + box.clientHeight) {
    box.scrollTop = line.row.offsetTop + line.row.offsetHeight - box.clientHeight;
  }
}
