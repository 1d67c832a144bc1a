// Table of all clips with one metric; sorting by a system puts its worst clips first.

function showClips(section, player) {
  const holder = scrollRegion("All clips");
  const hint = el("p", { class: "hint" });
  section.append(el("div", { class: "table-head" }, el("h3", {}, "All clips"), metricSelect()),
    el("div", { class: "clips" }, holder), hint);
  selectedMetric.subscribe((name) => {
    const metric = metrics.get(name) ?? null;
    holder.replaceChildren(clipTable(metric, player));
    hint.textContent = metric === null ? ""
      : `${metric.title}: ${direction(metric)}. Click a system to sort by its worst clips.`;
    markOpenClip(holder, player.clip.value);
  });
  player.clip.subscribe((clip) => markOpenClip(holder, clip));
}

function clipTable(metric, player) {
  const clips = evaluation.clips.map((clip, index) => ({
    ...clip, index, scores: evaluation.systems.map((system) => system.scores[index]) }));
  const clipButton = ({ name, index }) => button(breakable(name), { class: "clip-button",
    "data-clip": index, onclick: () => openAndShow(player, index) });
  const systems = metric === null ? [] : evaluation.systems.map((system, number) => ({
    label: [breakable(system.name)], name: system.name,
    title: `Worst clips of ${system.name} first`,
    first: metric.better === "higher" ? "ascending" : "descending",
    value: (clip) => clip.scores[number].values[metric.name] ?? null,
    cell: (clip) => valueCell(metric, clip.scores, number),
  }));
  return sortableTable(null, [
    { label: ["Clip"], first: "ascending", value: (clip) => clip.name,
      cell: (clip) => el("th", { scope: "row" }, clipButton(clip)) },
    { label: ["Seconds"], first: "descending", value: (clip) => clip.seconds,
      cell: (clip) => el("td", {}, clip.seconds.toFixed(1)) },
    ...systems], clips);
}

function openAndShow(player, clip) {
  player.open(clip, player.transport.switcher.playing);
  const reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
  player.title.scrollIntoView({ block: "start", behavior: reduced ? "auto" : "smooth" });
}

function markOpenClip(holder, clip) {
  holder.querySelectorAll("[data-clip]").forEach((each) =>
    each.setAttribute("aria-current", String(Number(each.dataset.clip) === clip)));
}
