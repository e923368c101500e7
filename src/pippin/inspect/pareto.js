// Bits per weight against expected loss: the best plans as a line, the current one as a dot.

const PLOT = { width: 520, height: 300, left: 62, right: 14, top: 16, bottom: 46 };
let plotted = null; // {points, x, y}: what the last drawing shows

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].find((s) => s * power >= rough) * power;
  const marks = [];
  for (let mark = Math.ceil(low / size - 1e-9) * size; mark <= high + size * 1e-9; mark += size) marks.push(mark);
  return [marks, Math.max(0, -Math.floor(Math.log10(size) + 1e-9))];
}

function updatePareto(now) {
  const box = document.getElementById("pareto");
  if (!hasLoss) {
    box.replaceChildren(make("p", { class: "dim" }, "Without expected losses there is nothing to plot."));
    return;
  }
  const points = frontier();
  const { width, height, left, right, top, bottom } = PLOT;
  const low = points[points.length - 1].bpw, high = points[0].bpw;
  const fits = now.bits_per_weight <= high * 1.2 + 0.05;
  const xs = [low, high, ...(fits ? [now.bits_per_weight] : [])], ys = [points[0].loss, points[points.length - 1].loss, ...(fits ? [now.loss] : [])];
  const pad = (Math.max(...xs) - Math.min(...xs)) * 0.06 || 0.1;
  const x0 = Math.min(...xs) - pad, x1 = Math.max(...xs) + pad;
  const y0 = Math.min(0, ...ys), y1 = Math.max(...ys) * 1.08 || 1;
  const x = (bpw) => left + ((width - left - right) * (bpw - x0)) / (x1 - x0);
  const y = (loss) => height - bottom - ((height - top - bottom) * (loss - y0)) / (y1 - y0);
  plotted = { points, x, y };
  const words = `Expected loss from ${asLoss(points[0].loss)} at ${decimals(high, 2)} bits to ${asLoss(points[points.length - 1].loss)} at ${decimals(low, 2)} bits per weight`;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": words });
  const text = (at, words, kind, anchor) => make("text", { x: at[0], y: at[1], class: kind, "text-anchor": anchor }, words);
  const [xMarks, xDigits] = ticks(x0, x1, 6), [yMarks, yDigits] = ticks(y0, y1, 5);
  for (const mark of yMarks) {
    svg.append(make("line", { x1: left, x2: width - right, y1: y(mark), y2: y(mark), class: "grid" }), text([left - 8, y(mark) + 4.5], decimals(mark, yDigits), "tick", "end"));
  }
  for (const mark of xMarks) {
    svg.append(make("line", { x1: x(mark), x2: x(mark), y1: height - bottom, y2: height - bottom + 5, class: "axis" }), text([x(mark), height - bottom + 20], decimals(mark, xDigits), "tick", "middle"));
  }
  svg.append(
    make("line", { x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, class: "axis" }),
    text([width - right, height - 8], "bits per weight", "unit", "end"),
    text([left, 10], `expected loss, ${profile.loss.unit}`, "unit", "start"),
    make("polyline", { points: points.map((p) => `${x(p.bpw).toFixed(1)},${y(p.loss).toFixed(1)}`).join(" "), class: "smooth" }));
  if (points.length < 60) points.forEach((p) => svg.append(make("circle", { cx: x(p.bpw), cy: y(p.loss), r: 2.5, class: "mark s0" })));
  if (fits) {
    const at = [x(now.bits_per_weight), y(now.loss)];
    const end = at[0] > width / 2;
    svg.append(make("circle", { cx: at[0], cy: at[1], r: 7, class: "mark s1", id: "pareto-now" }),
      text([at[0] + (end ? -11 : 11), at[1] + (end ? 20 : -10)], "this plan", "name", end ? "end" : "start"));
  }
  svg.addEventListener("click", onPlot);
  box.replaceChildren(svg);
  if (!fits) box.append(make("p", { class: "dim" }, `This plan, with float weights, lies far to the right: ${decimals(now.bits_per_weight, 2)} bits.`));
}

/** A click takes the nearest of the best plans. */
function onPlot(event) {
  const svg = event.currentTarget, box = svg.getBoundingClientRect();
  const at = [((event.clientX - box.left) * PLOT.width) / box.width, ((event.clientY - box.top) * PLOT.height) / box.height];
  const distance = (p) => (plotted.x(p.bpw) - at[0]) ** 2 + (plotted.y(p.loss) - at[1]) ** 2;
  const nearest = plotted.points.reduce((a, b) => (distance(b) < distance(a) ? b : a));
  change(() => (state.bits = bitsOf(nearest)));
}
