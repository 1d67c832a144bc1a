// What was found, and how it is put into words.

const facts = JSON.parse(document.getElementById("facts").textContent);
const metrics = new Map(facts.metrics.map((metric) => [metric.name, metric]));
const chosenMetric = new Choice(facts.metrics.length ? facts.metrics[0].name : null);
const NOTHING = "–";
const REFERENCE = "Reference";

function figure(value, digits) {
  if (value === null || value === undefined) return NOTHING;
  if (Math.abs(value) > 1e300) return value > 0 ? "∞" : "−∞"; // JSON has no other way to say it
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** Three digits that matter: of rates and times, which span decades. */
function brief(value) {
  if (value === null || value === undefined) return NOTHING;
  const size = Math.abs(value);
  return figure(value, size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 || size === 0 ? 2 : 3);
}

function clock(seconds) {
  const whole = Math.floor(seconds / 60);
  return `${whole}:${(seconds - whole * 60).toFixed(1).padStart(4, "0")}`;
}

function plural(count, word) {
  return count === 1 ? `1 ${word}` : `${count} ${word}s`;
}

/** Negative where `a` is the better one. */
function compare(metric, a, b) {
  return metric.better === "higher" ? b - a : a - b;
}

/** The best of some values as it is shown: what looks the same is as good. */
function bestOf(metric, values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (known.length < 2) return null;
  return figure(known.sort((a, b) => compare(metric, a, b))[0], metric.digits);
}

function direction(metric) {
  return metric.better === "higher" ? "higher is better" : "lower is better";
}

function metricHeading(metric) {
  return [
    el("span", { class: "name" }, ...metric.title.split(" ").flatMap((word) =>
      [el("span", { class: "word" }, word), " "])),
    el("small", {},
      metric.unit ? `${metric.unit} ` : "",
      el("span", { "aria-hidden": "true" }, metric.better === "higher" ? "↑" : "↓"),
      unseen(`, ${direction(metric)}`)),
  ];
}

/** A figure with, where it is the best of its kind, a mark that does not need colour. */
function markedFigure(text, best) {
  if (!best) return el("span", {}, text);
  return el("strong", { class: "best" },
    el("span", { "aria-hidden": "true" }, "★"), unseen("best: "), text);
}

function metricSelect(label) {
  const options = facts.metrics.map((metric) => [
    metric.name, metric.unit ? `${metric.title}, ${metric.unit}` : metric.title]);
  const made = select(label, options, chosenMetric.value, (name) => chosenMetric.set(name));
  chosenMetric.follow((name) => { if (name !== null) made.field.value = name; });
  return made.element;
}

/** The value of one clip and why there is none. */
function valueCell(metric, score, best, attributes = {}) {
  const value = score ? score.values[metric.name] ?? null : null;
  if (value !== null) {
    const text = figure(value, metric.digits);
    return el("td", attributes, markedFigure(text, best !== null && text === best));
  }
  const why = score ? score.problem ?? score.notes[metric.name] ?? "not measured" : null;
  return el("td", { ...attributes, title: why, class: "none" }, NOTHING,
    why === null ? null : unseen(`, ${why}`));
}
