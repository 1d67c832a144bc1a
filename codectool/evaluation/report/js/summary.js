// A row for each system: rates, means with their intervals, processor time, delay.

function showSummary(section) {
  const table = el("table", { class: "summary" });
  const columns = [systemColumn(), ...rateColumns(), ...facts.metrics.map(meanColumn),
    ...costColumns()];
  const rows = facts.systems.map((system) => ({
    system, cells: columns.map((column) => column.cell(system)) }));
  sortable(table, columns.map((column) => ({ ...column, key: (row) => column.value(row.system) })),
    rows);
  const worst = el("input", { type: "checkbox",
    onchange: () => table.classList.toggle("with-worst", worst.checked) });
  section.append(
    scroller("Summary of all systems", table),
    el("div", { class: "under" },
      el("p", {}, "Means over clips; beneath, the 95 % interval of the mean. ",
        el("span", { class: "best" }, "★"), " is the best of its column."),
      el("label", { class: "check" }, worst, " worst clips")));
}

function systemColumn() {
  return {
    label: ["System"], first: "ascending", value: (system) => system.name,
    cell: (system) => el("th", { scope: "row" }, system.name),
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

function meanColumn(metric) {
  const mean = (system) => system.means[metric.name] ?? null;
  const best = bestOf(metric, facts.systems.map((system) => mean(system)?.mean));
  return {
    label: metricHeading(metric), name: metric.title, title: metric.about,
    first: bestFirst(metric), value: (system) => mean(system)?.mean ?? null,
    cell: (system) => meanCell(metric, mean(system), best),
  };
}

function meanCell(metric, mean, best) {
  if (mean === null) {
    return el("td", { class: "none", title: "No clip has a value." }, NOTHING,
      unseen(", no clip has a value"));
  }
  const text = (value) => figure(value, metric.digits);
  const worst = `worst ${text(mean.worst)}: ${mean.worstClip}`;
  const missing = facts.clips.length - mean.clips;
  return el("td", { title: worst },
    markedFigure(text(mean.mean), text(mean.mean) === best),
    el("small", { class: "sub" }, mean.low === null || mean.high === null ? "one clip"
      : `${text(mean.low)}\u202f…\u202f${text(mean.high)}`),
    missing === 0 ? null : el("small", { class: "sub warn",
      title: `${plural(missing, "clip")} without a value` },
    `${mean.clips} of ${plural(facts.clips.length, "clip")}`),
    el("small", { class: "sub worst" }, worst));
}
