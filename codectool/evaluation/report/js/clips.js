// All clips with one metric: sorted by a system, its worst clips come first.

function showClips(section, player) {
  const holder = el("div", { class: "clips" });
  const hint = el("p", { class: "hint" });
  section.append(el("div", { class: "over" }, el("h3", {}, "All clips"),
    metricSelect("Metric")), holder, hint);
  chosenMetric.follow((name) => {
    const metric = metrics.get(name) ?? null;
    holder.replaceChildren(clipTable(metric, player));
    hint.textContent = metric === null ? ""
      : `${metric.title}: ${direction(metric)}. A system's heading puts its worst clips first.`;
    markOpened(holder, player.opened.value);
  });
  player.opened.follow((clip) => markOpened(holder, clip));
}

function clipTable(metric, player) {
  const table = el("table");
  const systems = metric === null ? [] : facts.systems;
  const columns = [
    { label: ["Clip"], first: "ascending", key: (row) => row.clip.name },
    { label: ["Seconds"], first: "descending", key: (row) => row.clip.seconds },
    ...systems.map((system) => ({
      label: [breakable(system.name)], name: system.name, first: worstFirst(metric),
      title: `Worst clips of ${system.name} first`,
      key: (row) => system.scores[row.index].values[metric.name] ?? null,
    })),
  ];
  const rows = facts.clips.map((clip, index) => {
    const values = systems.map((system) => system.scores[index].values[metric.name]);
    const best = metric === null ? null : bestOf(metric, values);
    return { clip, index, cells: [
      el("th", { scope: "row" }, button(breakable(clip.name), { class: "clip", "data-clip": index,
        onclick: () => openAndShow(player, index) })),
      el("td", {}, clip.seconds.toFixed(1)),
      ...systems.map((system) => valueCell(metric, system.scores[index], best)),
    ] };
  });
  sortable(table, columns, rows);
  return scroller("All clips", table);
}

function openAndShow(player, index) {
  player.open(index, player.deck?.playing);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  player.name.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
}

function markOpened(holder, clip) {
  for (const press of holder.querySelectorAll("[data-clip]")) {
    const opened = Number(press.dataset.clip) === clip;
    if (opened) press.setAttribute("aria-current", "true");
    else press.removeAttribute("aria-current");
  }
}
