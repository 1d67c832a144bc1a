// Notes: metrics and clips that are left out, problems, metrics and playback.

function showNotes(section) {
  const { left_out: leftOut, remarks, problems } = evaluation;
  const rows = problems.map(({ system, clip, reason }) => [
    el("td", {}, system || "all"), el("td", {}, breakable(clip)), el("td", {}, reason)]);
  const descriptions = evaluation.metrics.flatMap((metric) => [
    el("dt", {}, metric.title, el("small", {}, ` ${direction(metric)}`)),
    el("dd", {}, metric.about)]);
  section.append(
    note("Metrics left out", leftOut.length
      ? el("ul", {}, ...leftOut.map((line) => el("li", {}, line)))
      : el("p", {}, "None: all requested metrics were computed.")),
    note("Clips left out of some metrics, and other lengths", remarks.length
      ? el("ul", {}, ...remarks.map((line) => el("li", {}, breakable(line))))
      : el("p", {}, "None: every clip has all values and the length of its reference.")),
    note("Problems", problems.length
      ? scrollRegion("Problems", simpleTable("problems", ["System", "Clip", "Reason"], rows))
      : el("p", {}, "None: all clips were scored in all systems.")),
    note("Metrics", el("dl", {}, ...descriptions)),
    note("Playback", el("p", {},
      "The delay of each system is removed, and its audio is cut to the length of the reference. ",
      "Audio is mono with 16 bits at the sampling rate of the reference (16 to 48 kHz), and its ",
      "level is not changed. Spectrograms show 0 to 12 kHz on a mel scale, all with the same ",
      "colours.")));
}

function note(title, content) {
  return el("div", {}, el("h3", {}, title), content);
}
