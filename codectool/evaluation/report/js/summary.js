// A row for each system: rates, means with their intervals, processor time, delay.

/** `open` is called with the number of a clip. */
function showSummary(section, open) {
  const table = el("table", { class: "summary" });
  const columns = [systemColumn(), ...rateColumns(),
    ...facts.metrics.map((metric) => meanColumn(metric, open)), ...costColumns()];
  const rows = facts.systems.map((system) => ({
    system, cells: columns.map((column) => column.cell(system)) }));
  sortable(table, columns.map((column) => ({ ...column, key: (row) => column.value(row.system) })),
    rows);
  section.append(
    scroller("Summary of all systems", table),
    el("p", { class: "hint" }, "Means over clips, ± half of their 95 % interval. ↑ higher is ",
      "better, ↓ lower is better, ", el("span", { class: "best" }, "★"), " the best of its ",
      "column. A heading sorts; the worst value opens its clip."));
}

function systemColumn() {
  return {
    label: ["System"], first: "ascending", value: (system) => system.name,
    cell: (system) => el("th", { scope: "row" }, breakable(system.name)),
  };
}

function plainColumn(label, small, title, value, sub = () => null) {
  return {
    label: [el("span", { class: "name" }, label), el("small", {}, small)],
    name: label, first: "ascending", title, value,
    cell: (system) => el("td", {}, brief(value(system)), sub(system)),
  };
}

function known(key) {
  return facts.systems.some((system) => system[key] !== null);
}

function rateColumns() {
  const files = (system) => system.kbpsFile === null || system.kbpsFile === system.kbps ? null
    : el("small", { class: "sub", title: "of whole files" }, `files ${brief(system.kbpsFile)}`);
  return [plainColumn("kbps", "payload", "Kilobits per second of audio that the decoder needs",
    (system) => system.kbps, files)];
}

function costColumns() {
  const about = "Seconds of processor time per second of audio";
  return [
    known("rtfEncode") && plainColumn("RTF", "encode", `${about}, encoding`, (s) => s.rtfEncode),
    known("rtfDecode") && plainColumn("RTF", "decode", `${about}, decoding`, (s) => s.rtfDecode),
    known("delay") && plainColumn("Delay", "ms", "By how much the audio came late; it was moved " +
      "back before it was compared. Unknown where each clip has its own.", (s) => s.delay),
  ].filter(Boolean);
}

function meanColumn(metric, open) {
  const mean = (system) => system.means[metric.name] ?? null;
  const best = bestOf(metric, facts.systems.map((system) => mean(system)?.mean));
  return {
    label: metricHeading(metric), name: metric.title, title: metric.about,
    first: bestFirst(metric), value: (system) => mean(system)?.mean ?? null,
    cell: (system) => meanCell(metric, mean(system), best, open),
  };
}

function meanCell(metric, mean, best, open) {
  if (mean === null) {
    return el("td", { class: "none", title: "No clip has a value." }, NOTHING,
      unseen(", no clip has a value"));
  }
  const text = (value) => figure(value, metric.digits);
  const missing = facts.clips.length - mean.clips;
  return el("td", {},
    markedFigure(text(mean.mean), text(mean.mean) === best),
    interval(mean, text),
    missing === 0 ? null : el("small", { class: "sub warn",
      title: `${plural(missing, "clip")} without a value` },
    `${mean.clips} of ${facts.clips.length}`, unseen(" clips")),
    el("small", { class: "sub" }, worstClip(text(mean.worst), mean.worstClip, open)));
}

function interval({ low, high, clips }, text) {
  if (clips === 1) return el("small", { class: "sub" }, "one clip");
  if (low === null || high === null) return null; // there is none around an infinite mean
  return el("small", { class: "sub", title: `95 % interval: ${text(low)} to ${text(high)}` },
    `±${text((high - low) / 2)}`);
}

function worstClip(text, name, open) {
  const index = facts.clips.findIndex((clip) => clip.name === name);
  return button(`worst ${text}`, { class: "clip", title: name, onclick: () => open(index) },
    unseen(`: open ${name}`));
}
