// Play, pause and seek, for the player and for the blind test.

const SKIP = 1; // seconds that an arrow key goes

class Transport {
  /** `deck` gives the deck of the moment, or null. */
  constructor(deck) {
    this.deck = deck;
    this.play = button("Play", { class: "main-button", onclick: () => this.deck()?.toggle() });
    this.place = el("input", { type: "range", min: 0, max: 1, step: "any", value: 0,
      "aria-label": "Position", oninput: () => this.deck()?.seek(Number(this.place.value)) });
    this.time = el("span", { class: "time" });
    this.loop = button("Loop", { "aria-pressed": "false", onclick: () => this.toggleLoop() });
    this.element = el("div", { class: "transport" }, this.play, this.place, this.time, this.loop);
    this.show();
  }

  skip(seconds) {
    const deck = this.deck();
    deck?.seek(deck.time + seconds);
  }

  /** Repeat all of the clip, or nothing. */
  toggleLoop() {
    const deck = this.deck();
    if (deck === null) return;
    deck.loop = deck.loop ? null : { start: 0, end: deck.seconds };
    this.show();
    deck.changed();
  }

  show() {
    const deck = this.deck();
    const seconds = deck?.seconds ?? 0;
    const time = deck?.time ?? 0;
    this.play.textContent = deck?.playing ? "Pause" : "Play";
    this.play.disabled = deck === null || deck.lead === null;
    this.loop.setAttribute("aria-pressed", String(Boolean(deck?.loop)));
    this.place.max = seconds || 1;
    this.place.value = time;
    this.place.setAttribute("aria-valuetext", `${clock(time)} of ${clock(seconds)}`);
    this.time.textContent = `${clock(time)} / ${clock(seconds)}`;
  }
}

/** Call again and again while something plays. */
function everyFrame(work) {
  const step = () => {
    work();
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}
