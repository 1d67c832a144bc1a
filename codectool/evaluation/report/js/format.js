// The data of the page, and its values as text.

const evaluation = JSON.parse(document.getElementById("evaluation").textContent);
const metrics = new Map(evaluation.metrics.map((metric) => [metric.name, metric]));
const selectedMetric = new Observable(evaluation.metrics[0]?.name ?? null);
const NO_VALUE = "–";
const INFINITE = 1e300; // the data holds the largest number for infinity, which JSON lacks

/** Name of a system; number 0 is the reference. */
function systemName(number) {
  return number === 0 ? "Reference" : evaluation.systems[number - 1].name;
}

function formatNumber(value, digits) {
  if (value === null || value === undefined) return NO_VALUE;
  if (Math.abs(value) > INFINITE) return value > 0 ? "∞" : "−∞";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** Format with about three significant digits. */
function formatShort(value) {
  const size = Math.abs(value);
  return formatNumber(value, size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 || size === 0 ? 2 : 3);
}

function formatTime(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - minutes * 60).toFixed(1).padStart(4, "0")}`;
}

function plural(count, word) {
  return count === 1 ? `1 ${word}` : `${count} ${word}s`;
}

function direction(metric) {
  return `${metric.better} is better`;
}

/** The best of at least two values as text, so that values which look equal are equally good. */
function bestText(metric, values) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const best = metric.better === "higher" ? Math.max(...known) : Math.min(...known);
  return formatNumber(best, metric.digits);
}

function metricHeading(metric) {
  const words = metric.title.split(" ").flatMap((word) => [
    el("span", { class: "word" }, word), " "]);
  return [
    el("span", { class: "name" }, ...words),
    el("small", {}, metric.unit ? `${metric.unit} ` : "",
      el("span", { "aria-hidden": "true" }, metric.better === "higher" ? "↑" : "↓"),
      hiddenText(`, ${direction(metric)}`)),
  ];
}

function metricSelect() {
  const options = evaluation.metrics.map((metric) => [metric.name, titleWithUnit(metric)]);
  const { input, element } = labelledSelect("Metric", options, selectedMetric.value,
    (name) => selectedMetric.set(name));
  selectedMetric.subscribe((name) => { if (name !== null) input.value = name; });
  return element;
}

function titleWithUnit(metric) {
  return metric.unit ? `${metric.title}, ${metric.unit}` : metric.title;
}

/** A value, marked with a star if it is the best. */
function markedValue(text, isBest) {
  if (!isBest) return el("span", {}, text);
  return el("strong", { class: "best" },
    el("span", { "aria-hidden": "true" }, "★"), hiddenText("best: "), text);
}

/** Table cell with the value of one of several scores, or the reason why there is none. */
function valueCell(metric, scores, index) {
  const values = scores.map((score) => score.values[metric.name] ?? null);
  if (values[index] !== null) {
    const text = formatNumber(values[index], metric.digits);
    return el("td", {}, markedValue(text, text === bestText(metric, values)));
  }
  const { problem, notes } = scores[index];
  const reason = problem ?? notes[metric.name] ?? "not measured";
  return el("td", { title: reason, class: "no-value" }, NO_VALUE, hiddenText(`, ${reason}`));
}
