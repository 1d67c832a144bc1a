// What was left out, what went wrong, and what the figures mean.

function showNotes(section) {
  section.append(
    listed("Not measured", facts.leftOut, "All metrics that were asked for were measured."),
    problems(),
    meanings(),
    el("div", {}, el("h3", {}, "How the clips are played"), el("p", {},
      "Every system is moved by its delay and cut to the length of the reference, at the sampling ",
      "rate of the reference (16 to 48 kHz), mono, 16 bit, as loud as it was. Spectrograms show 0 ",
      "to 12 kHz on a mel scale; all have the same colours.")));
}

function listed(title, lines, none) {
  return el("div", {}, el("h3", {}, title), lines.length
    ? el("ul", {}, ...lines.map((line) => el("li", {}, line)))
    : el("p", {}, none));
}

function problems() {
  if (facts.problems.length === 0) return listed("Problems", [], "None: every clip has its scores.");
  const head = ["System", "Clip", "Reason"];
  const table = el("table", { class: "problems" },
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...facts.problems.map(({ system, clip, reason }) => el("tr", {},
      el("td", {}, system || "all"), el("td", {}, breakable(clip)), el("td", {}, reason)))));
  return el("div", {}, el("h3", {}, "Problems"), scroller("Problems", table));
}

function meanings() {
  return el("div", {}, el("h3", {}, "Metrics"), el("dl", {}, ...facts.metrics.flatMap((metric) => [
    el("dt", {}, metric.title, el("small", {}, ` ${direction(metric)}`)),
    el("dd", {}, metric.about)])));
}
