// Blind ABX test: X is A or B at random, and the listener decides which.

const TRIAL_COUNTS = [8, 12, 16, 20, 24, 32];

class BlindTest {
  constructor(section, player) {
    this.player = player;
    this.trials = null; // null while no test is running
    this.systems = [0, Math.min(1, evaluation.systems.length)]; // A and B
    this.count = 16;
    this.card = el("div", { class: "card blind-test" });
    this.transport = new Transport(() => this.#update());
    section.append(this.card);
    this.#showSetup();
  }

  get running() {
    return this.trials !== null;
  }

  /** Handle a key; return whether it has a function. */
  key(key) {
    const actions = {
      a: () => this.#listen(0), b: () => this.#listen(1), x: () => this.#listen(2),
      A: () => this.#answer(0), B: () => this.#answer(1),
    };
    actions[key]?.();
    return key in actions || this.transport.key(key);
  }

  /** Text such as "A is Reference, B is hac." */
  #systemsText(verb) {
    const [a, b] = this.systems.map(systemName);
    return el("p", { class: "clip-info" }, `A ${verb} ${a}, B ${verb} ${b}.`);
  }

  #showSetup(error = null) {
    const options = [0, ...evaluation.systems].map((_, number) => [number, systemName(number)]);
    const selects = ["A", "B"].map((label, index) => labelledSelect(label, options,
      this.systems[index], (value) => { this.systems[index] = Number(value); check(); }));
    const counts = labelledSelect("Trials", TRIAL_COUNTS.map((count) => [count, count]),
      this.count, (value) => { this.count = Number(value); });
    const start = button("Start", { class: "primary", onclick: () => this.#start() });
    const status = el("p", { class: "hint", role: "status" });
    const check = () => {
      const equal = this.systems[0] === this.systems[1];
      const clips = this.#clips();
      start.disabled = equal || clips.length === 0;
      status.textContent = equal ? "Choose two different systems."
        : clips.length === 0 ? "No clip has audio of both systems."
          : `${plural(clips.length, "clip")} with audio of both systems.`;
    };
    this.card.replaceChildren(
      el("p", {}, "In each trial, X is either A or B, chosen at random. Listen to A, B and X as ",
        "often as you like and decide which one X is. Results are shown at the end."),
      el("div", { class: "fields" },
        ...selects.map((select) => select.element), counts.element, start),
      status, ...(error === null ? [] : [el("p", { class: "hint" }, error)]));
    check();
  }

  /** Clips with audio of both systems. */
  #clips() {
    return [...evaluation.clips.keys()]
      .filter((clip) => this.systems.every((system) => hasAudio(clip, system)));
  }

  #start() {
    const clips = this.#clips();
    const rounds = Array.from({ length: Math.ceil(this.count / clips.length) });
    this.trials = rounds.flatMap(() => shuffled(clips)).slice(0, this.count)
      .map((clip) => ({ clip, x: randomBelow(2), answer: null }));
    this.player.transport.switcher.pause();
    this.#showTest();
    this.title.focus({ preventScroll: true });
    this.#openTrial();
  }

  #showTest() {
    this.title = el("h3", { tabindex: -1 });
    this.progress = el("progress", { max: this.trials.length, value: 0,
      "aria-label": "Answered trials" });
    this.listenButtons = ["A", "B", "X"].map((letter, index) => button(letter, {
      class: "listen-button", "aria-label": `Listen to ${letter}`,
      onclick: () => this.#listen(index) }));
    const answers = ["A", "B"].map((letter, index) => button(`X is ${letter}`, {
      class: "primary", onclick: () => this.#answer(index) }));
    this.card.replaceChildren(
      el("div", { class: "card-head" }, el("div", {}, this.title, this.#systemsText("is")),
        el("div", { class: "buttons" }, button("Stop test", { onclick: () => this.#finish() }))),
      this.progress,
      el("div", { class: "listen-buttons" }, ...this.listenButtons),
      this.transport.element,
      el("div", { class: "answers" }, ...answers),
      el("p", { class: "hint keys-hint" }, "Shortcuts: a, b, x to listen; space to play or pause; ",
        "Shift+A, Shift+B to answer."));
  }

  get #answered() {
    return this.trials.filter((trial) => trial.answer !== null);
  }

  async #openTrial() {
    const number = this.#answered.length;
    const { clip, x } = this.trials[number];
    this.title.textContent = `Trial ${number + 1} of ${this.trials.length}`;
    this.progress.value = number;
    announce(this.title.textContent);
    if (!await this.transport.open(clip, [...this.systems, this.systems[x]])) return;
    const { switcher } = this.transport;
    await switcher.loaded;
    if (switcher !== this.transport.switcher || switcher.tracks.every(Boolean)) return;
    this.#finish("The audio of this clip cannot be played.");
  }

  #listen(index) {
    const { switcher } = this.transport;
    switcher.select(index);
    switcher.play();
    announce(`Listening to ${"ABX"[index]}`);
  }

  #answer(index) {
    if (this.transport.switcher.track === null) return;
    this.trials[this.#answered.length].answer = index;
    if (this.#answered.length < this.trials.length) this.#openTrial();
    else this.#finish();
  }

  #finish(error = null) {
    const [trials, planned] = [this.#answered, this.trials.length];
    this.transport.close();
    this.trials = null;
    if (trials.length === 0) this.#showSetup(error);
    else this.#showResult(trials, planned, error);
  }

  #showResult(trials, planned, error) {
    const answered = trials.length;
    const correct = trials.filter((trial) => trial.answer === trial.x).length;
    const p = guessingProbability(correct, answered);
    const [a, b] = this.systems.map(systemName);
    const result = { a, b, planned, answered, correct, p, trials: trials.map((trial) => ({
      clip: evaluation.clips[trial.clip].name, x: "AB"[trial.x], answer: "AB"[trial.answer] })) };
    const title = el("h3", { tabindex: -1 }, `${correct} of ${answered} correct`);
    const verdict = verdictText(correct, answered, p);
    this.card.replaceChildren(...[
      title,
      this.#systemsText("was"),
      error && el("p", {}, error),
      answered < planned && el("p", {},
        `Stopped after ${plural(answered, "answer")} of ${planned}.`),
      el("p", { class: "verdict" }, verdict),
      scrollRegion("Answers", answerTable(result.trials)),
      el("div", { class: "buttons" },
        button("Download as JSON", { onclick: () => download(result) }),
        button("New test", { onclick: () => this.#showSetup() })),
    ].filter(Boolean));
    title.focus({ preventScroll: true });
    announce(`${title.textContent}. ${verdict}`);
  }

  #update() {
    this.listenButtons?.forEach((each, index) => each.setAttribute("aria-pressed",
      String(this.transport.switcher.selected === index)));
  }
}

function verdictText(correct, count, p) {
  const [share, value] = p >= 0.001 ? [`${formatShort(p * 100)} %`, `p = ${p.toFixed(3)}`]
    : ["less than 0.1 %", "p < 0.001"];
  const meaning = p < 0.05 ? "You probably heard a difference."
    : "This does not show that you heard a difference, nor that there is none.";
  return `Guessing alone gives at least ${correct} of ${count} correct answers in ${share} of ` +
    `tests (${value}, exact one-sided binomial test). ${meaning}`;
}

function answerTable(trials) {
  const rows = trials.map(({ clip, x, answer }, index) => [
    el("td", {}, String(index + 1)), el("th", { scope: "row" }, breakable(clip)),
    el("td", {}, x), el("td", {}, answer), el("td", {}, answer === x ? "✓ yes" : "✗ no")]);
  return simpleTable("answer-table", ["Trial", "Clip", "X", "Answer", "Correct"], rows);
}

function download(result) {
  const text = `${JSON.stringify(result, null, 2)}\n`;
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  el("a", { href: url, download: "blind-test.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
