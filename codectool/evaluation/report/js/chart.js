// Chart of quality against bit rate.

const MARGIN = { top: 14, right: 16, bottom: 46, left: 58 };
const LABEL_FONT = "12px system-ui, sans-serif"; // as in the style
const LABEL_LENGTH = 24;

function showChart(section) {
  const holder = el("div", { class: "chart" });
  const note = el("p", { class: "hint" });
  section.append(el("div", { class: "card" }, metricSelect(), holder, note));
  let width = 0;
  const redraw = () => {
    const metric = metrics.get(selectedMetric.value);
    if (!metric || width < 100) return;
    const points = chartPoints(metric);
    const [known, unknown] = [true, false].map((has) =>
      points.filter((point) => (point.kbps !== null) === has));
    holder.replaceChildren(known.length ? drawChart(metric, known, width)
      : el("p", { class: "no-value" }, "No system has both a known bit rate and a value."));
    const names = unknown.map(({ name, mean }) => `${name} (${formatNumber(mean, metric.digits)})`);
    note.textContent = "Bars: 95 % confidence interval of the mean." +
      (names.length ? ` Without a known bit rate: ${names.join(", ")}.` : "");
  };
  selectedMetric.subscribe(redraw);
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 1) return;
    width = entry.contentRect.width;
    redraw();
  }).observe(holder);
}

function chartPoints(metric) {
  return evaluation.systems.filter((system) => system.means[metric.name]).map((system) => {
    const { mean, low, high } = system.means[metric.name];
    return { name: system.name, kbps: system.kbps, mean, low: low ?? mean, high: high ?? mean };
  }).filter((point) => Math.abs(point.mean) < INFINITE);
}

function drawChart(metric, points, width) {
  const height = Math.round(Math.min(440, Math.max(300, width * 0.45)));
  const area = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top,
    bottom: height - MARGIN.bottom };
  const x = bitRateScale(points.map((point) => point.kbps), area.left, area.right);
  const y = valueScale(points, area.bottom, area.top);
  const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${titleWithUnit(metric)} against bit rate for ` +
      `${plural(points.length, "system")}; the summary table has the same values` },
  drawAxes(x, y, area, metric));
  const placed = points.map((point) => ({ ...point, x: x.at(point.kbps), y: y.at(point.mean),
    top: y.at(point.high), bottom: y.at(point.low) }));
  chart.append(...placed.map((point) => drawPoint(point, metric)),
    ...drawLabels(placed, { ...area, top: 2, right: width - 2 }));
  return chart;
}

/** Logarithmic if the bit rates differ by more than a factor of 4. */
function bitRateScale(values, from, to) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (low > 0 && high / low > 4) {
    const scale = linearScale(Math.log10(low), Math.log10(high), 0.3, from, to);
    return { at: (value) => scale.at(Math.log10(value)),
      ticks: logTicks(10 ** scale.begin, 10 ** scale.end), title: "bit rate, kbps (logarithmic)" };
  }
  const scale = linearScale(low, high, high * 0.2 || 1, from, to);
  const ticks = niceTicks(Math.max(scale.begin, 0), scale.end, 6);
  return { ...scale, ticks, title: "bit rate, kbps" };
}

function valueScale(points, from, to) {
  const low = Math.min(...points.map((point) => point.low));
  const high = Math.max(...points.map((point) => point.high));
  const scale = linearScale(low, high, Math.abs(high) * 0.1 || 1, from, to);
  return { ...scale, ticks: niceTicks(scale.begin, scale.end, 5) };
}

/** Map values to pixels with a margin of 10 %, or `margin` if all values are equal. */
function linearScale(low, high, margin, from, to) {
  const room = (high - low) * 0.1 || margin;
  const [begin, end] = [low - room, high + room];
  return { begin, end, at: (value) => from + (to - from) * (value - begin) / (end - begin) };
}

/** Round numbers in a range, at most `count` or one more. */
function niceTicks(begin, end, count) {
  const raw = (end - begin) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= raw);
  const first = Math.ceil(begin / step);
  const last = Math.floor(end / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

function logTicks(begin, end) {
  const factors = end / begin > 20 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 6, 8];
  const ticks = [];
  for (let power = Math.floor(Math.log10(begin)); 10 ** power <= end; power += 1) {
    ticks.push(...factors.map((factor) => factor * 10 ** power));
  }
  return ticks.filter((value) => value >= begin && value <= end);
}

function drawAxes(x, y, { left, right, top, bottom }, metric) {
  const gap = y.ticks.length > 1 ? y.ticks[1] - y.ticks[0] : 1;
  const decimals = Math.max(0, Math.min(Math.max(metric.digits, 3),
    -Math.floor(Math.log10(gap) + 1e-9)));
  const group = svg("g", { class: "axes" },
    svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "tick" }),
    svg("text", { x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle" }, x.title),
    svg("text", { "text-anchor": "middle",
      transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)` },
    `${titleWithUnit(metric)} (${direction(metric)})`));
  for (const value of y.ticks) {
    const at = y.at(value);
    group.append(svg("line", { x1: left, x2: right, y1: at, y2: at }),
      svg("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, formatNumber(value, decimals)));
  }
  for (const value of x.ticks) {
    const at = x.at(value);
    group.append(svg("line", { x1: at, x2: at, y1: bottom, y2: bottom + 5, class: "tick" }),
      svg("text", { x: at, y: bottom + 18, "text-anchor": "middle" },
        String(Number(value.toPrecision(6)))));
  }
  return group;
}

function drawPoint({ name, kbps, mean, x, y, top, bottom }, metric) {
  const bar = bottom - top < 1 ? null : svg("path", {
    d: `M${x} ${top}V${bottom}M${x - 4} ${top}h8M${x - 4} ${bottom}h8` });
  const title = `${name}: ${formatNumber(mean, metric.digits)} at ${formatShort(kbps)} kbps`;
  return svg("g", { class: "point" }, svg("title", {}, title), bar,
    svg("circle", { cx: x, cy: y, r: 5 }));
}

/** Place each name where it overlaps least; distant names get a line to their point. */
function drawLabels(points, area) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = LABEL_FONT;
  const taken = points.flatMap(({ x, y, top, bottom }) => [
    { left: x - 6, right: x + 6, top: y - 6, bottom: y + 6, weight: 4 },
    { left: x - 4, right: x + 4, top, bottom, weight: 1 }]);
  return points.flatMap(({ name, x, y }) => {
    const text = name.length <= LABEL_LENGTH ? name : `${name.slice(0, LABEL_LENGTH - 1)}…`;
    const width = context.measureText(text).width + 4;
    const boxes = [10, 22, 36, 52].flatMap((gap) => boxesAround(x, y, width, 15, gap));
    const costs = boxes.map((box) => overlapCost(box, taken, area));
    const box = boxes[costs.indexOf(Math.min(...costs))];
    taken.push({ ...box, weight: 6 });
    const line = box.gap < 20 ? null : svg("line", { class: "leader", x1: x, y1: y,
      x2: Math.max(box.left, Math.min(x, box.right)),
      y2: Math.max(box.top, Math.min(y, box.bottom)) });
    const label = svg("text", { x: box.left + 2, y: box.bottom - 3, class: "label" }, text);
    return line === null ? [label] : [line, label];
  });
}

/** Boxes at a distance `gap` from a point: right, left, diagonally, above and below. */
function boxesAround(x, y, width, height, gap) {
  const skew = gap * 0.75;
  const [right, left, below, above] = [x + skew, x - skew - width, y + skew, y - skew - height];
  const corners = [
    [x + gap, y - height / 2], [x - gap - width, y - height / 2],
    [right, above], [right, below], [left, above], [left, below],
    [x - width / 2, y - gap - height], [x - width / 2, y + gap]];
  return corners.map(([l, t]) => ({ left: l, right: l + width, top: t, bottom: t + height, gap }));
}

function overlapCost(box, taken, area) {
  const outside = Math.max(0, area.left - box.left) + Math.max(0, box.right - area.right) +
    Math.max(0, area.top - box.top) + Math.max(0, box.bottom - area.bottom);
  const overlaps = taken.map((other) => {
    const width = Math.min(box.right, other.right) - Math.max(box.left, other.left);
    const height = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
    return other.weight * Math.max(0, width) * Math.max(0, height);
  });
  return outside * 1000 + box.gap * 0.5 + overlaps.reduce((sum, overlap) => sum + overlap, 0);
}
