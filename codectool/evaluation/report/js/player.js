// Player: one clip at a time, with its audio, spectrograms and scores in all systems.

class Player {
  constructor(section) {
    this.clip = new Observable(null);
    this.lower = 1; // system in the lower spectrogram
    this.title = el("h3", {});
    this.info = el("p", { class: "clip-info" });
    this.transport = new Transport(() => this.#update());
    this.spectrograms = new Spectrograms((time) => this.transport.switcher.seek(time),
      (range) => this.#loop(range));
    this.scores = scrollRegion("Scores of this clip");
    section.append(el("div", { class: "card player" },
      el("div", { class: "card-head" },
        el("div", {}, this.title, this.info),
        el("div", { class: "buttons" },
          button("Previous", { onclick: () => this.step(-1), "aria-label": "Previous clip" }),
          button("Next", { onclick: () => this.step(1), "aria-label": "Next clip" }),
          button("Shortcuts", { onclick: showShortcuts, "aria-haspopup": "dialog" }))),
      this.spectrograms.element,
      this.transport.element,
      el("div", { class: "legend hint" },
        el("span", {}, "Spectrograms: click to seek, drag to loop a range."),
        el("span", { class: "scale" }, "−80 dB", el("span", { class: "color-bar" }), "−10 dB")),
      this.scores));
  }

  async open(clip, play = false) {
    const { selected } = this.transport.switcher;
    const systems = Array.from({ length: evaluation.systems.length + 1 }, (_, system) => system);
    const opened = this.transport.open(clip, systems);
    this.clip.set(clip);
    this.#showClip();
    if (!await opened) return;
    const { switcher } = this.transport;
    await switcher.select(selected);
    await this.#showSpectrogram(0, 0);
    await this.#showSpectrogram(1, this.lower);
    if (play) await switcher.play();
  }

  /** Open another clip, `by` clips further. */
  step(by) {
    const clip = this.clip.value + by;
    if (evaluation.clips[clip]) this.open(clip, this.transport.switcher.playing);
  }

  async select(system) {
    const { switcher } = this.transport;
    if (!switcher.tracks[system]) return;
    switcher.select(system);
    announce(`${systemName(system)}, ${formatTime(switcher.time)}`);
    if (system > 0 && system !== this.lower) {
      this.lower = system;
      await this.#showSpectrogram(1, system);
    }
  }

  /** Handle a key; return whether it has a function. */
  key(key) {
    const actions = { n: () => this.step(1), p: () => this.step(-1) };
    for (let system = 0; system <= 9; system += 1) actions[system] = () => this.select(system);
    actions[key]?.();
    return key in actions || this.transport.key(key);
  }

  #loop(range) {
    this.transport.switcher.loop = range;
    this.transport.switcher.seek(range.start);
    announce(`Looping ${formatTime(range.start)} to ${formatTime(range.end)}`);
  }

  async #showSpectrogram(index, system) {
    const clip = this.clip.value;
    const exists = system <= evaluation.systems.length;
    const url = exists ? await mediaUrl("spectrogram", clip, system) : null;
    if (clip !== this.clip.value || (index === 1 && system !== this.lower)) return;
    this.spectrograms.show(index, exists ? systemName(system) : "", url);
    this.#update();
  }

  #showClip() {
    const clip = this.clip.value;
    const { name, seconds } = evaluation.clips[clip];
    this.title.replaceChildren(breakable(name));
    this.info.textContent =
      `Clip ${clip + 1} of ${evaluation.clips.length}, ${formatTime(seconds)}`;
    announce(`Opened clip ${clip + 1}, ${name}`);
    const scores = evaluation.systems.map((system) => system.scores[clip]);
    const headings = ["System", ...evaluation.metrics.map((metric) =>
      el("span", { title: metric.about }, ...metricHeading(metric)))];
    const row = (system, problem, cells) => [
      el("th", { scope: "row" }, this.#systemButton(system, problem)), ...cells];
    this.scores.replaceChildren(simpleTable("scores", headings, [
      row(0, null, evaluation.metrics.map((metric) =>
        el("td", {}, metric.needs_reference ? "" : formatNumber(
          evaluation.originals?.scores[clip].values[metric.name], metric.digits)))),
      ...scores.map((score, index) => row(index + 1, score.problem,
        evaluation.metrics.map((metric) => valueCell(metric, scores, index))))]));
  }

  #systemButton(system, problem) {
    return button("", { class: "system-button", "data-system": system, title: problem,
      onclick: () => this.select(system) },
    system <= 9 ? el("kbd", { "aria-hidden": "true" }, String(system)) : null,
    breakable(systemName(system)));
  }

  #update() {
    const { switcher } = this.transport;
    const selected = switcher.track === null ? null : switcher.selected;
    for (const each of this.scores.querySelectorAll(".system-button")) {
      const system = Number(each.dataset.system);
      each.disabled = !switcher.tracks[system];
      each.setAttribute("aria-pressed", String(system === selected));
    }
    this.spectrograms.update([0, this.lower].indexOf(selected), switcher);
  }
}
