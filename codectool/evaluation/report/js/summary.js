// Summary: a row per system with bit rate, means, speed and delay.

/** `openClip` is called with the number of a clip. */
function showSummary(section, openClip) {
  const columns = [systemColumn(), bitRateColumn(),
    ...evaluation.metrics.map((metric) => meanColumn(metric, openClip)), ...costColumns()];
  const { originals, systems } = evaluation;
  const items = originals === null ? systems : [originals, ...systems];
  section.append(
    scrollRegion("Summary of all systems", sortableTable("summary", columns, items)),
    el("p", { class: "hint" }, "Mean over all clips, ± half the width of its 95 % confidence ",
      "interval. ↑ higher is better, ↓ lower is better, ", el("span", { class: "best" }, "★"),
      " best of the column. Click a heading to sort, or a worst value to open its clip."));
}

function systemColumn() {
  return {
    label: ["System"], first: "ascending", value: (system) => system.name,
    cell: (system) => el("th", { scope: "row" }, breakable(system.name),
      system.version ? el("small", { class: "sub" }, system.version) : null),
  };
}

function numberColumn(label, sublabel, title, value, note = () => null) {
  return {
    label: [el("span", { class: "name" }, label), el("small", {}, sublabel)],
    name: label, first: "ascending", title, value,
    cell: (system) => el("td", {}, formatShort(value(system)), note(system)),
  };
}

function bitRateColumn() {
  const ofFiles = ({ kbps, kbps_file: files }) => (files === null || files === kbps ? null
    : el("small", { class: "sub", title: "Bit rate of whole files" },
      `files ${formatShort(files)}`));
  return numberColumn("kbps", "payload", "Bit rate of the data that the decoder needs",
    (system) => system.kbps, ofFiles);
}

function costColumns() {
  const columns = [
    ["rtf_encode", "RTF", "encode", "Processor time of encoding per second of audio"],
    ["rtf_decode", "RTF", "decode", "Processor time of decoding per second of audio"],
    ["delay_ms", "Delay", "ms", "Delay of the decoded audio, removed before the comparison; " +
      "unknown if each clip has its own"],
  ];
  return columns
    .filter(([key]) => evaluation.systems.some((system) => system[key] !== null))
    .map(([key, ...texts]) => numberColumn(...texts, (system) => system[key]));
}

function meanColumn(metric, openClip) {
  const mean = (system) => system.means[metric.name] ?? null;
  const best = bestText(metric, evaluation.systems.map((system) => mean(system)?.mean ?? null));
  return {
    label: metricHeading(metric), name: metric.title, title: metric.about,
    first: metric.better === "higher" ? "descending" : "ascending",
    value: (system) => mean(system)?.mean ?? null,
    cell: (system) => meanCell(metric, mean(system), best, openClip,
      evaluation.systems.includes(system)),
  };
}

function meanCell(metric, mean, best, openClip, isSystem) {
  if (mean === null) {
    return el("td", { class: "no-value", title: "No clip has a value." }, NO_VALUE,
      hiddenText(", no clip has a value"));
  }
  const format = (value) => formatNumber(value, metric.digits);
  const total = evaluation.clips.length;
  const missing = total - mean.clips;
  const worst = evaluation.clips.findIndex((clip) => clip.name === mean.worst_clip);
  return el("td", {},
    markedValue(format(mean.mean), isSystem && format(mean.mean) === best),
    intervalText(mean, format),
    missing === 0 ? null : el("small", { class: "sub warning",
      title: `${plural(missing, "clip")} without a value` },
    `${mean.clips} of ${total}`, hiddenText(" clips")),
    el("small", { class: "sub" }, button(`worst ${format(mean.worst)}`, { class: "clip-button",
      title: mean.worst_clip, onclick: () => openClip(worst) },
    hiddenText(`: open ${mean.worst_clip}`))));
}

function intervalText({ low, high, clips }, format) {
  if (clips === 1) return el("small", { class: "sub" }, "one clip");
  if (low === null || high === null) return null; // the mean is infinite
  return el("small", { class: "sub",
    title: `95 % confidence interval: ${format(low)} to ${format(high)}` },
  `±${format((high - low) / 2)}`);
}
