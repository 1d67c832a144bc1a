// One clip at a time: its sounds, its pictures, and all its figures.

class Player {
  #opening = 0;

  constructor(section) {
    this.clip = null;
    this.deck = null;
    this.media = new Media();
    this.below = 1; // number of the system in the lower picture
    this.opened = new Choice(null);
    this.name = el("h3", {});
    this.place = el("p", { class: "place" });
    this.transport = new Transport(() => this.deck);
    this.spectra = new Spectra({
      seek: (time) => this.deck?.seek(time),
      stretch: (loop) => this.#repeat(loop),
    });
    this.table = el("table", { class: "contestants" });
    section.append(this.#card());
    everyFrame(() => this.#frame());
  }

  #card() {
    const help = button("Keys", { onclick: () => showKeys(), "aria-haspopup": "dialog" });
    return el("div", { class: "card player" },
      el("div", { class: "now" },
        el("div", {}, this.name, this.place),
        el("div", { class: "buttons" },
          button("Previous", { onclick: () => this.step(-1), "aria-label": "Previous clip" }),
          button("Next", { onclick: () => this.step(1), "aria-label": "Next clip" }),
          help)),
      this.spectra.element,
      this.transport.element,
      el("div", { class: "legend" },
        el("span", {}, "In the pictures: click to go there, drag to repeat a stretch."),
        el("span", { class: "scale" }, "−80 dB", el("span", { class: "colours" }), "−10 dB")),
      scroller("Figures of this clip", this.table));
  }

  async open(clip, play = false) {
    const turn = ++this.#opening;
    const chosen = this.deck?.chosen ?? 0;
    this.deck?.close();
    this.media.close();
    this.deck = null;
    this.clip = clip;
    this.opened.set(clip);
    this.media = new Media();
    this.#describe();
    const { media } = this;
    const numbers = [0, ...facts.systems.map((_, index) => index + 1)];
    const links = await Promise.all(numbers.map((number) => media.link("sound", clip, number)));
    if (turn !== this.#opening) {
      media.close();
      return;
    }
    this.deck = new Deck(links, () => this.#show());
    await this.deck.choose(chosen);
    this.#show();
    await this.#picture(0, 0);
    await this.#picture(1, this.below);
    if (play) await this.deck?.play();
  }

  step(by) {
    const next = this.clip + by;
    if (next >= 0 && next < facts.clips.length) this.open(next, this.deck?.playing);
  }

  async choose(number) {
    if (!this.deck?.sounds[number]) return;
    this.deck.choose(number);
    say(`${nameOf(number)}, ${clock(this.deck.time)}`);
    if (number > 0 && number !== this.below) {
      this.below = number;
      await this.#picture(1, number);
    }
  }

  pause() {
    if (this.deck?.playing) this.deck.pause();
  }

  #repeat(loop) {
    if (!this.deck) return;
    this.deck.loop = loop;
    this.deck.seek(loop.start);
    say(`Repeating ${clock(loop.start)} to ${clock(loop.end)}`);
  }

  async #picture(index, number) {
    const { clip } = this;
    if (number > facts.systems.length) {
      this.spectra.show(index, "", null);
      return;
    }
    const link = await this.media.link("image", clip, number);
    if (clip !== this.clip || (index === 1 && number !== this.below)) return;
    this.spectra.show(index, nameOf(number), link);
    this.#show();
  }

  #describe() {
    const { name, seconds } = facts.clips[this.clip];
    this.name.replaceChildren(breakable(name));
    this.place.textContent = `Clip ${this.clip + 1} of ${facts.clips.length}, ${clock(seconds)}`;
    say(`Opened clip ${this.clip + 1}, ${name}`);
    const scores = facts.systems.map((system) => system.scores[this.clip]);
    const best = facts.metrics.map((metric) =>
      bestOf(metric, scores.map((score) => score.values[metric.name])));
    const row = (number, cells) => el("tr", {}, el("th", { scope: "row" },
      this.#contestant(number)), ...cells);
    this.table.replaceChildren(
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "System"),
        ...facts.metrics.map((metric) => el("th", { scope: "col", title: metric.about },
          ...metricHeading(metric))))),
      el("tbody", {},
        row(0, facts.metrics.map(() => el("td", { class: "none" }))),
        ...scores.map((score, index) => row(index + 1, facts.metrics.map((metric, column) =>
          valueCell(metric, score, best[column]))))));
  }

  #contestant(number) {
    const problem = number > 0 ? facts.systems[number - 1].scores[this.clip].problem : null;
    return button("", { class: "contestant", "aria-pressed": "false", "data-number": number,
      title: problem, onclick: () => this.choose(number) },
    number <= 9 ? el("kbd", { "aria-hidden": "true" }, String(number)) : null,
    breakable(nameOf(number)));
  }

  #show() {
    this.transport.show();
    for (const press of this.table.querySelectorAll(".contestant")) {
      const number = Number(press.dataset.number);
      const there = Boolean(this.deck?.sounds[number]);
      press.disabled = !there;
      press.setAttribute("aria-pressed", String(there && this.deck.chosen === number));
    }
    const chosen = this.deck?.lead ? this.deck.chosen : -1;
    this.spectra.mark(chosen === 0 ? 0 : chosen === this.below ? 1 : -1);
    this.spectra.setSeconds(this.deck?.seconds ?? 0);
    this.spectra.setTime(this.deck?.time ?? 0);
    this.spectra.setStretch(this.deck?.loop ?? null);
  }

  #frame() {
    if (!this.deck?.playing) return;
    this.deck.tick();
    this.transport.show();
    this.spectra.setTime(this.deck.time);
  }
}
