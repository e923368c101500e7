// What joins the parts.

const byId = (name) => document.getElementById(name);
const nowTotals = totals(asItIs);

function showTotals(now, found) {
  const energy = found.reduce((sum, f) => sum + f.energy, 0);
  const tokens = profile.prompt_tokens;
  const unit = profile.loss.source === "proxy" ? "proxy, not a loss" : profile.loss.unit;
  const items = [
    ["file", "whole file", asBytes(now.file_bytes), `${decimals(now.file_bytes, 0)} bytes; now ${asBytes(nowTotals.file_bytes)}`],
    ["bpw", "bits per weight", decimals(now.bits_per_weight, 3), `projections; now ${decimals(nowTotals.bits_per_weight, 2)}`],
    ["bpp", "bits per parameter", decimals(now.bits_per_parameter, 3), `whole file; now ${decimals(nowTotals.bits_per_parameter, 2)}`],
    ["speed", "tokens/s here", three(now.tokens_per_s), `torch; now ${three(nowTotals.tokens_per_s)}`],
    ["prompt", "prompt", asMs(now.ms.prompt), `${tokens} tokens; now ${asMs(nowTotals.ms.prompt)}`],
    ["loss", "expected loss", asLoss(now.loss), now.loss === null ? "not known" : `${unit}; now ${asLoss(nowTotals.loss)}`],
    ["energy", state.mode === "token" ? "energy of a token" : "energy of the prompt", asEnergy(energy), "a model, not measured"],
  ];
  const list = byId("totals");
  if (!list.children.length) {
    for (const [key] of items) list.append(make("div", { "data-key": key }, make("dt"), make("dd"), make("dd", { class: "small" })));
  }
  items.forEach((item, index) => {
    [...list.children[index].children].forEach((cell, at) => (cell.textContent = item[at + 1]));
  });
  Object.assign(list.dataset, {
    tensorBytes: now.tensor_bytes, fileBytes: now.file_bytes, bitsPerWeight: now.bits_per_weight,
    tokensPerS: now.tokens_per_s, loss: now.loss,
  });
}

function sayTotals(now) {
  clearTimeout(saying);
  saying = setTimeout(() => {
    byId("said").textContent = `${asBytes(now.file_bytes)}, ${decimals(now.bits_per_weight, 2)} bits per weight, `
      + `${three(now.tokens_per_s)} tokens per second` + (now.loss === null ? "" : `, expected loss ${asLoss(now.loss)}`);
  }, 600);
}

function update() {
  const now = totals(state.bits);
  const found = updateTable();
  showTotals(now, found);
  updateGraph(found);
  showDetail(found);
  updatePareto(now);
  updateControls(now);
  sayTotals(now);
}

function updateControls(now) {
  const floats = state.bits.filter((bits) => !bits).length;
  const fours = state.bits.filter((bits) => bits === 4).length;
  byId("export").disabled = floats > 0;
  byId("undo").disabled = !past.length;
  byId("redo").disabled = !future.length;
  byId("unpin").disabled = !state.pinned.size;
  const pins = state.pinned.size ? `, ${state.pinned.size} pinned` : "";
  byId("plan-note").textContent = `${fours} projections at 4 bits, ${state.bits.length - fours - floats} at 2`
    + (floats ? `, ${floats} float${pins}. The palettizer takes 4 and 2 only: a plan with float weights cannot be exported.` : `${pins}.`);
  const slider = byId("budget");
  slider.disabled = !hasLoss;
  if (!hasLoss) return;
  const points = frontier();
  slider.min = points[points.length - 1].bpw;
  slider.max = points[0].bpw;
  if (document.activeElement !== slider || !dragging) slider.value = now.bits_per_weight;
  const words = dragging ? Number(slider.value) : now.bits_per_weight;
  byId("budget-said").textContent = words > points[0].bpw * 1.001 ? "not used" : `${decimals(words, 3)} bits per weight`;
  slider.setAttribute("aria-valuetext", `${decimals(Number(slider.value), 2)} bits per weight`);
}

function select(op) {
  state.selected = op;
  markRow();
  markNode();
  showDetail(rows.slice().sort((a, b) => a.op.index - b.op.index).map((line) => line.values));
}

let dragging = false, moved = false;
function onSlide() {
  dragging = true;
  const before = past.length;
  const wanted = Number(byId("budget").value);
  change(() => (state.bits = bitsOf(within(wanted))), moved);
  moved = moved || past.length > before;
  updateControls(totals(state.bits));
}

function setMode(mode) {
  state.mode = mode;
  for (const other of ["token", "prompt"]) byId("mode-" + other).setAttribute("aria-pressed", String(other === mode));
  update();
}

function exportPlan() {
  const plan = Object.fromEntries(projections.map((op) => [op.name, state.bits[op.place]]));
  const blob = new Blob([JSON.stringify(plan, null, 1) + "\n"], { type: "application/json" });
  const link = make("a", { download: "bitplan.json", href: URL.createObjectURL(blob) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

buildTable();
buildGraph();
listeners.push(update);
byId("search").addEventListener("input", search);
byId("budget").addEventListener("input", onSlide);
byId("budget").addEventListener("change", () => {
  dragging = moved = false;
  updateControls(totals(state.bits));
});
byId("preset-now").addEventListener("click", () => setAll(asItIs.slice()));
for (const bits of [4, 2]) {
  byId("preset-" + bits).addEventListener("click", () => setAll(asItIs.map(() => bits)));
  byId("shown-" + bits).addEventListener("click", () => setBits(rows.filter((l) => l.shown && l.op.kind === "projection").map((l) => l.op), bits));
}
byId("undo").addEventListener("click", () => step(past, future));
byId("redo").addEventListener("click", () => step(future, past));
byId("unpin").addEventListener("click", () => change(() => state.pinned.clear()));
byId("export").addEventListener("click", exportPlan);
byId("heat-by").addEventListener("change", (event) => {
  state.heat = event.target.value;
  update();
});
for (const mode of ["token", "prompt"]) byId("mode-" + mode).addEventListener("click", () => setMode(mode));
for (const key in profile.energy) {
  byId("energy-" + key).addEventListener("input", (event) => {
    const value = Number(event.target.value);
    if (event.target.value !== "" && Number.isFinite(value) && value >= 0) {
      profile.energy[key] = value;
      update();
    }
  });
}
addEventListener("hashchange", readAddress);
addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.target.matches("input[type=search], input[type=number]")) return;
  const key = event.key.toLowerCase();
  if (key === "z" && !event.shiftKey) step(past, future);
  else if (key === "y" || key === "z") step(future, past);
  else return;
  event.preventDefault();
});
if (!profile.float_bits) byId("table-keys").textContent = "In the table: arrow keys move, 2 and 4 set the bits of the row.";
setMode("token");
arrange();
search();
readAddress();
