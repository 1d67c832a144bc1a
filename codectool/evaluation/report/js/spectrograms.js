// Spectrograms of the reference and of one system, with playhead and loop range.

const FREQUENCY_TICKS = [500, 1000, 2000, 4000, 8000]; // in Hz
const MAX_FREQUENCY = 12000;
const MIN_DRAG = 6; // in pixels; less is a click

/** Slaney's mel scale, as in `codectool.audio.mel`. */
function hertzToMel(hertz) {
  return hertz < 1000 ? hertz * 3 / 200 : 15 + 27 * Math.log(hertz / 1000) / Math.log(6.4);
}

class Spectrograms {
  #duration = 0;
  #dragStart = null; // in seconds

  /** `onSeek` is called with a time in seconds, `onLoop` with `start` and `end` in seconds. */
  constructor(onSeek, onLoop) {
    this.panels = ["upper", "lower"].map((position) => {
      const caption = el("span", { class: "caption" });
      const image = el("img", { alt: "", draggable: "false" });
      const frame = el("div", { class: `spectrogram ${position}` }, image, caption);
      return { caption, image, frame, axis: frequencyAxis(position) };
    });
    this.playhead = el("div", { class: "playhead" });
    this.range = el("div", { class: "loop-range", hidden: true });
    this.overlay = el("div", { class: "overlay" }, this.range, this.playhead);
    this.timeAxis = el("div", { class: "time-axis", "aria-hidden": "true" });
    this.element = el("div", { class: "spectrograms" },
      ...this.panels.flatMap(({ axis, frame }) => [axis, frame]), this.overlay, this.timeAxis);
    this.#listen(onSeek, onLoop);
  }

  /** Show a spectrogram in one of the two panels; a URL of null leaves it empty. */
  show(index, name, url) {
    const { caption, image, frame } = this.panels[index];
    caption.textContent = name;
    frame.classList.toggle("empty", url === null);
    image.hidden = url === null;
    image.alt = url === null ? "" : `Spectrogram, ${name}`;
    if (url !== null) image.src = url;
  }

  /** Show the state of an audio switcher; `active` is the panel of its track, or -1. */
  update(active, { duration, time, loop }) {
    this.panels.forEach(({ frame }, index) => frame.classList.toggle("active", index === active));
    if (duration !== this.#duration) {
      this.#duration = duration;
      this.#drawTimeAxis();
    }
    this.playhead.style.left = this.#percent(time);
    this.#setLoop(loop);
  }

  #setLoop(loop) {
    this.range.hidden = loop === null;
    if (loop === null) return;
    this.range.style.left = this.#percent(loop.start);
    this.range.style.width = this.#percent(loop.end - loop.start);
  }

  #percent(time) {
    return `${this.#duration ? 100 * time / this.#duration : 0}%`;
  }

  #drawTimeAxis() {
    const count = Math.max(2, Math.min(8, this.overlay.clientWidth / 70));
    const ticks = niceTicks(0, this.#duration, count).filter((t) => t < this.#duration * 0.97);
    this.timeAxis.replaceChildren(...ticks.map((value) => {
      const tick = el("span", {}, `${Number(value.toPrecision(6))} s`);
      tick.style.left = this.#percent(value);
      return tick;
    }));
  }

  #listen(onSeek, onLoop) {
    const timeOf = (event) => {
      const box = this.overlay.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      return this.#duration * Math.max(0, Math.min(1, share));
    };
    const draggedRange = (event) => {
      const [start, end] = [this.#dragStart, timeOf(event)].sort((a, b) => a - b);
      const pixels = (end - start) / this.#duration * this.overlay.clientWidth;
      return pixels < MIN_DRAG ? null : { start, end };
    };
    this.overlay.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.#duration) return;
      this.#dragStart = timeOf(event);
      this.overlay.setPointerCapture(event.pointerId);
    });
    this.overlay.addEventListener("pointermove", (event) => {
      const range = this.#dragStart === null ? null : draggedRange(event);
      if (range !== null) this.#setLoop(range);
    });
    this.overlay.addEventListener("pointerup", (event) => {
      if (this.#dragStart === null) return;
      const range = draggedRange(event);
      this.#dragStart = null;
      if (range === null) onSeek(timeOf(event));
      else onLoop(range);
    });
    this.overlay.addEventListener("pointercancel", () => { this.#dragStart = null; });
  }
}

function frequencyAxis(position) {
  return el("div", { class: `frequency-axis ${position}`, "aria-hidden": "true" },
    ...FREQUENCY_TICKS.map((hertz) => {
      const label = el("span", {}, hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`);
      label.style.bottom = `${100 * hertzToMel(hertz) / hertzToMel(MAX_FREQUENCY)}%`;
      return label;
    }));
}
