// Quality against bit rate, drawn as wide as the page is.

const TOP = 14;
const BOTTOM = 46;
const LEFT = 58;
const RIGHT = 16;
const FONT = "12px system-ui, sans-serif";

function showPlot(section) {
  const holder = el("div", { class: "drawing" });
  const rest = el("p", { class: "under" });
  section.append(el("div", { class: "card" }, metricSelect("Metric"), holder, rest));
  let width = 0;
  const redraw = () => {
    const metric = metrics.get(chosenMetric.value);
    if (!metric || width < 100) return;
    const points = pointsOf(metric).filter((point) => point.kbps !== null);
    holder.replaceChildren(points.length ? drawing(metric, points, width)
      : el("p", { class: "none" }, "No system has both a known bit rate and a value."));
    rest.textContent = beneath(metric);
  };
  chosenMetric.follow(redraw);
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 1) return;
    width = entry.contentRect.width;
    redraw();
  }).observe(holder);
}

function pointsOf(metric) {
  return facts.systems.filter((system) => system.means[metric.name]).map((system) => {
    const { mean, low, high } = system.means[metric.name];
    return { name: system.name, kbps: system.kbps, mean, low: low ?? mean, high: high ?? mean };
  }).filter((point) => Math.abs(point.mean) < 1e300);
}

function beneath(metric) {
  const named = pointsOf(metric).filter((point) => point.kbps === null)
    .map((point) => `${point.name} (${figure(point.mean, metric.digits)})`);
  const bars = "Bars: 95 % interval of the mean.";
  return named.length ? `${bars} Without a known bit rate: ${named.join(", ")}.` : bars;
}

function drawing(metric, points, width) {
  const height = Math.round(Math.min(440, Math.max(300, width * 0.45)));
  const x = rateScale(points.map((point) => point.kbps), LEFT, width - RIGHT);
  const y = valueScale(points, height - BOTTOM, TOP);
  const named = metric.unit ? `${metric.title}, ${metric.unit}` : metric.title;
  const picture = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${named} against bit rate of ${plural(points.length, "system")}; ` +
      "the table above holds the same figures" });
  picture.append(axes(x, y, width, height, `${named} (${direction(metric)})`, metric.digits));
  const placed = points.map((point) => ({ ...point, x: x.at(point.kbps), y: y.at(point.mean),
    top: y.at(point.high), bottom: y.at(point.low) }));
  placed.forEach((point) => picture.append(mark(point, metric)));
  picture.append(...labels(placed, { left: LEFT, right: width - 2, top: 2,
    bottom: height - BOTTOM }));
  return picture;
}

function rateScale(values, from, to) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const wide = low > 0 && high / low > 4;
  const [scale, back] = wide ? [Math.log10, (value) => 10 ** value] : [(v) => v, (v) => v];
  const room = (scale(high) - scale(low)) * 0.1 || (wide ? 0.3 : high * 0.2 || 1);
  const [begin, end] = [scale(low) - room, scale(high) + room];
  const ticks = wide ? decades(back(begin), back(end)) : steps(Math.max(begin, 0), end, 6);
  const at = (value) => from + (to - from) * (scale(value) - begin) / (end - begin);
  return { at, ticks, log: wide };
}

function valueScale(points, from, to) {
  const low = Math.min(...points.map((point) => point.low));
  const high = Math.max(...points.map((point) => point.high));
  const room = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
  const [begin, end] = [low - room, high + room];
  const at = (value) => from + (to - from) * (value - begin) / (end - begin);
  return { at, ticks: steps(begin, end, 5) };
}

/** Round values, about as many as asked for. */
function steps(begin, end, count) {
  const raw = (end - begin) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= raw);
  const first = Math.ceil(begin / step);
  const last = Math.floor(end / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

function decades(begin, end) {
  const factors = end / begin > 20 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 6, 8];
  const found = [];
  for (let power = Math.floor(Math.log10(begin)); 10 ** power <= end; power += 1) {
    found.push(...factors.map((factor) => factor * 10 ** power));
  }
  return found.filter((value) => value >= begin && value <= end);
}

function axes(x, y, width, height, title, digits) {
  const group = draw("g", { class: "axes" });
  const floor = height - BOTTOM;
  for (const value of y.ticks) {
    const at = y.at(value);
    group.append(draw("line", { x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
    const decimals = decimalsOf(y.ticks, digits);
    group.append(draw("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" },
      figure(value, decimals)));
  }
  for (const value of x.ticks) {
    const at = x.at(value);
    group.append(draw("line", { x1: at, x2: at, y1: floor, y2: floor + 5, class: "tick" }));
    group.append(draw("text", { x: at, y: floor + 18, "text-anchor": "middle" },
      String(Number(value.toPrecision(6)))));
  }
  group.append(
    draw("line", { x1: LEFT, x2: width - RIGHT, y1: floor, y2: floor, class: "tick" }),
    draw("text", { x: (LEFT + width - RIGHT) / 2, y: height - 8, "text-anchor": "middle",
      class: "title" }, x.log ? "kilobits per second (logarithmic)" : "kilobits per second"),
    draw("text", { x: 0, y: 0, "text-anchor": "middle", class: "title",
      transform: `translate(13 ${(TOP + floor) / 2}) rotate(-90)` }, title));
  return group;
}

/** As many decimals as tell neighbouring ticks apart. */
function decimalsOf(ticks, most) {
  const gap = ticks.length > 1 ? ticks[1] - ticks[0] : 1;
  return Math.max(0, Math.min(Math.max(most, 3), -Math.floor(Math.log10(gap) + 1e-9)));
}

function mark(point, metric) {
  const { x, y, top, bottom } = point;
  const bar = bottom - top < 1 ? [] : [
    draw("line", { x1: x, x2: x, y1: top, y2: bottom }),
    draw("line", { x1: x - 4, x2: x + 4, y1: top, y2: top }),
    draw("line", { x1: x - 4, x2: x + 4, y1: bottom, y2: bottom })];
  const told = `${point.name}: ${figure(point.mean, metric.digits)} at ${brief(point.kbps)} kbps`;
  return draw("g", { class: "mark" }, draw("title", {}, told), ...bar,
    draw("circle", { cx: x, cy: y, r: 5 }));
}

/** Names beside their marks, where they hide least; far ones get a line to their mark. */
function labels(points, bounds) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = FONT;
  const taken = points.flatMap(({ x, y, top, bottom }) => [
    { left: x - 6, right: x + 6, top: y - 6, bottom: y + 6, weight: 4 },
    { left: x - 4, right: x + 4, top, bottom, weight: 1 }]);
  return points.flatMap((point) => {
    const text = shortened(point.name, 24);
    const size = { width: pen.measureText(text).width + 4, height: 15 };
    const spots = [10, 22, 36, 52].flatMap((gap) => spotsAround(point, size, gap));
    const spot = spots.map((each) => ({ ...each, cost: costOf(each, taken, bounds) }))
      .reduce((a, b) => (b.cost < a.cost ? b : a));
    taken.push({ ...spot, weight: 6 });
    const name = draw("text", { x: spot.left + 2, y: spot.bottom - 3, class: "label" }, text);
    return spot.gap < 20 ? [name] : [leader(point, spot), name];
  });
}

function spotsAround({ x, y }, { width, height }, gap) {
  const box = (left, top) => ({ left, right: left + width, top, bottom: top + height, gap });
  const skew = gap * 0.75;
  return [
    box(x + gap, y - height / 2), box(x - gap - width, y - height / 2),
    box(x + skew, y - skew - height), box(x + skew, y + skew),
    box(x - skew - width, y - skew - height), box(x - skew - width, y + skew),
    box(x - width / 2, y - gap - height), box(x - width / 2, y + gap)];
}

function costOf(box, taken, bounds) {
  const outside = Math.max(0, bounds.left - box.left) + Math.max(0, box.right - bounds.right) +
    Math.max(0, bounds.top - box.top) + Math.max(0, box.bottom - bounds.bottom);
  return taken.reduce((sum, other) => {
    const across = Math.min(box.right, other.right) - Math.max(box.left, other.left);
    const down = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
    return across > 0 && down > 0 ? sum + other.weight * across * down : sum;
  }, outside * 1000 + box.gap * 0.5);
}

function leader({ x, y }, spot) {
  const to = { x: Math.max(spot.left, Math.min(x, spot.right)),
    y: Math.max(spot.top, Math.min(y, spot.bottom)) };
  return draw("line", { x1: x, y1: y, x2: to.x, y2: to.y, class: "leader" });
}

function shortened(text, length) {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}
