// A/B/X: X is secretly A or B, and the listener says which.

const TRIALS = [8, 12, 16, 20, 24, 32];

class Blind {
  #deck = null;
  #media = new Media();
  #turn = 0;

  constructor(section, player) {
    this.player = player;
    this.trials = null; // of the test that runs
    this.holder = el("div", { class: "card blind" });
    this.transport = new Transport(() => this.#deck);
    section.append(this.holder);
    this.pair = ["0", facts.systems.length ? "1" : "0"];
    this.count = 16;
    this.#setup();
    everyFrame(() => this.#frame());
  }

  get running() {
    return this.trials !== null;
  }

  key(key) {
    const keys = {
      " ": () => this.#deck?.toggle(),
      a: () => this.#listen(0), b: () => this.#listen(1), x: () => this.#listen(2),
      A: () => this.#answer(0), B: () => this.#answer(1),
      l: () => this.transport.toggleLoop(),
      ArrowLeft: () => this.transport.skip(-SKIP), ArrowRight: () => this.transport.skip(SKIP),
    };
    keys[key]?.();
    return key in keys;
  }

  #setup() {
    const options = [REFERENCE, ...facts.systems.map((system) => system.name)]
      .map((name, number) => [String(number), name]);
    const fields = ["A", "B"].map((label, index) => select(label, options, this.pair[index],
      (value) => { this.pair[index] = value; check(); }));
    const trials = select("Trials", TRIALS.map((count) => [String(count), String(count)]),
      String(this.count), (value) => { this.count = Number(value); });
    const start = button("Start", { class: "main-button", onclick: () => this.#start() });
    const why = el("p", { class: "hint", role: "status" });
    const check = () => {
      const [a, b] = this.pair;
      const clips = this.#clips();
      start.disabled = a === b || clips.length === 0;
      why.textContent = a === b ? "Choose two different ones."
        : clips.length === 0 ? "There is no clip that both have."
          : `Drawn from ${plural(clips.length, "clip")}.`;
    };
    this.holder.replaceChildren(
      el("p", {}, "In every trial X is secretly A or B. Listen to all three as often as you like ",
        "and say which one X is; what was right is told at the end."),
      el("div", { class: "fields" }, ...fields.map((field) => field.element),
        trials.element, start),
      why);
    check();
  }

  #clips() {
    const [a, b] = this.pair.map(Number);
    return facts.clips.map((_, clip) => clip)
      .filter((clip) => a !== b && heard(clip, a) && heard(clip, b));
  }

  #start() {
    const clips = this.#clips();
    const rounds = Array.from({ length: Math.ceil(this.count / clips.length) });
    this.trials = rounds.flatMap(() => shuffled(clips)).slice(0, this.count)
      .map((clip) => ({ clip, secret: lot(2), answer: null }));
    this.player.pause();
    this.#panel();
    this.title.focus({ preventScroll: true });
    this.#next();
  }

  #panel() {
    this.title = el("h3", { tabindex: -1 });
    this.bar = el("progress", { max: this.trials.length, value: 0, "aria-label": "Answered" });
    this.presses = ["A", "B", "X"].map((letter, index) => button(letter, { class: "letter",
      "aria-pressed": "false", "aria-label": `Listen to ${letter}`,
      onclick: () => this.#listen(index) }));
    const answers = ["A", "B"].map((letter, index) => button(`X is ${letter}`,
      { class: "main-button", onclick: () => this.#answer(index) }));
    const [a, b] = this.pair.map((number) => nameOf(Number(number)));
    this.holder.replaceChildren(
      el("div", { class: "now" }, el("div", {}, this.title,
        el("p", { class: "place" }, `A is ${a}, B is ${b}.`)),
      el("div", { class: "buttons" }, button("Stop the test", { onclick: () => this.#finish() }))),
      this.bar,
      el("div", { class: "letters" }, ...this.presses),
      this.transport.element,
      el("div", { class: "answers" }, ...answers),
      el("p", { class: "hint keys-hint" }, "Keys: a, b, x to listen; space to play; Shift with A ",
        "or B to answer."));
  }

  get #done() {
    return this.trials.filter((trial) => trial.answer !== null).length;
  }

  async #next() {
    const turn = ++this.#turn;
    this.#close();
    const number = this.#done;
    const { clip, secret } = this.trials[number];
    this.title.textContent = `Trial ${number + 1} of ${this.trials.length}`;
    this.bar.value = number;
    say(this.title.textContent);
    const media = new Media();
    this.#media = media;
    const pair = this.pair.map(Number);
    const links = [];
    for (const each of [...pair, pair[secret]]) links.push(await media.link("sound", clip, each));
    if (turn !== this.#turn) {
      media.close();
      return;
    }
    this.#deck = new Deck(links, () => this.#show());
    await this.#deck.loaded;
    if (turn !== this.#turn || this.#deck.sounds.every(Boolean)) return;
    this.#finish("A sound of this clip does not play.");
  }

  #listen(index) {
    if (!this.#deck) return;
    this.#deck.choose(index);
    if (!this.#deck.playing) this.#deck.play();
    say(`Listening to ${"ABX"[index]}`);
  }

  #answer(index) {
    if (!this.#deck) return;
    this.trials[this.#done].answer = index;
    if (this.#done < this.trials.length) this.#next();
    else this.#finish();
  }

  #close() {
    this.#deck?.close();
    this.#media.close();
    this.#deck = null;
  }

  #finish(trouble = null) {
    this.#turn += 1;
    this.#close();
    const trials = this.trials.filter((trial) => trial.answer !== null);
    const planned = this.trials.length;
    this.trials = null;
    if (trials.length === 0) {
      this.#setup();
      if (trouble !== null) this.holder.append(el("p", { class: "hint" }, trouble));
      return;
    }
    this.#result(trials, planned, trouble);
  }

  #result(trials, planned, trouble) {
    const right = trials.filter((trial) => trial.answer === trial.secret).length;
    const [a, b] = this.pair.map((number) => nameOf(Number(number)));
    const words = verdict(right, trials.length);
    const head = el("h3", { tabindex: -1 }, `${right} of ${trials.length} right`);
    const found = { a, b, planned, answered: trials.length, right,
      p: guessing(right, trials.length), trials: trials.map((trial) => ({
        clip: facts.clips[trial.clip].name, x: "AB"[trial.secret], answer: "AB"[trial.answer] })) };
    this.holder.replaceChildren(...[
      head,
      el("p", { class: "place" }, `A was ${a}, B was ${b}.`),
      trouble && el("p", {}, trouble),
      trials.length < planned
        ? el("p", {}, `Stopped after ${plural(trials.length, "answer")} of ${planned}.`) : null,
      el("p", { class: "verdict" }, words),
      scroller("Answers", answerTable(trials)),
      el("div", { class: "buttons" },
        button("Download as JSON", { onclick: () => download(found) }),
        button("New test", { onclick: () => this.#setup() })),
    ].filter(Boolean));
    head.focus({ preventScroll: true });
    say(`${head.textContent}. ${words}`);
  }

  #show() {
    this.transport.show();
    this.presses?.forEach((press, index) => press.setAttribute("aria-pressed",
      String(this.#deck?.chosen === index)));
  }

  #frame() {
    if (!this.#deck?.playing) return;
    this.#deck.tick();
    this.transport.show();
  }
}

function verdict(right, count) {
  const p = guessing(right, count);
  const share = p >= 0.001 ? `${brief(p * 100)} % of such tests` : "fewer than 0.1 % of such tests";
  const told = p >= 0.001 ? `p = ${p.toFixed(3)}` : "p < 0.001";
  const means = p < 0.05
    ? "So it is likely that you heard a difference."
    : "So this does not show that you heard a difference; nor does it show that there is none.";
  return `Somebody who only guesses gets ${right} or more of ${count} right in ${share} ` +
    `(${told}, exact one-sided binomial test). ${means}`;
}

function answerTable(trials) {
  const head = ["Trial", "Clip", "X was", "You said", "Right"];
  return el("table", { class: "answers-table" },
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...trials.map((trial, index) => el("tr", {},
      el("td", {}, String(index + 1)),
      el("th", { scope: "row" }, breakable(facts.clips[trial.clip].name)),
      el("td", {}, "AB"[trial.secret]),
      el("td", {}, "AB"[trial.answer]),
      el("td", {}, trial.answer === trial.secret ? "✓ yes" : "✗ no")))));
}

function download(found) {
  const text = `${JSON.stringify(found, null, 2)}\n`;
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  el("a", { href: url, download: "blind-test.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
