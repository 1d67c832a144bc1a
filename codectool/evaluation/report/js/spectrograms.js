// The pictures of two sounds over one time axis, with a playing head and a stretch to repeat.

const HERTZ = [500, 1000, 2000, 4000, 8000];
const HIGHEST = 12000; // upper edge of the pictures
const DRAG = 6; // pixels: less is a click

/** Slaney's mel, in which the rows of the pictures are equally spaced. */
function mel(hertz) {
  return hertz < 1000 ? hertz * 3 / 200 : 15 + 27 * Math.log(hertz / 1000) / Math.log(6.4);
}

class Spectra {
  #seconds = 0;
  #from = null; // where a drag began, in seconds

  /** `seek` is called with seconds; `stretch` with start and end in seconds. */
  constructor({ seek, stretch }) {
    this.heads = [el("span", { class: "caption" }), el("span", { class: "caption" })];
    this.pictures = [el("img", { alt: "", draggable: "false" }),
      el("img", { alt: "", draggable: "false" })];
    this.frames = this.pictures.map((picture, index) =>
      el("div", { class: index ? "frame lower" : "frame" }, picture, this.heads[index]));
    this.line = el("div", { class: "playhead" });
    this.band = el("div", { class: "stretch", hidden: true });
    this.ticks = el("div", { class: "ticks", "aria-hidden": "true" });
    this.veil = el("div", { class: "veil" }, this.band, this.line);
    this.element = el("div", { class: "spectra" },
      hertzAxis("hertz"), this.frames[0], hertzAxis("hertz lower"), this.frames[1], this.veil,
      this.ticks);
    this.#listen(seek, stretch);
  }

  show(index, name, link) {
    this.heads[index].textContent = name;
    this.frames[index].classList.toggle("empty", link === null);
    this.pictures[index].hidden = link === null;
    this.pictures[index].alt = link === null ? "" : `Spectrogram, ${name}`;
    if (link !== null) this.pictures[index].src = link;
  }

  /** Which of the two is heard; -1 is neither. */
  mark(index) {
    this.frames.forEach((frame, each) => frame.classList.toggle("heard", each === index));
  }

  setSeconds(seconds) {
    if (seconds === this.#seconds) return;
    this.#seconds = seconds;
    const room = Math.max(2, Math.min(8, this.veil.clientWidth / 70));
    const values = steps(0, seconds, room).filter((value) => value < seconds * 0.97);
    this.ticks.replaceChildren(...values.map((value) => {
      const tick = el("span", {}, `${Number(value.toPrecision(6))} s`);
      tick.style.left = `${100 * value / seconds}%`;
      return tick;
    }));
  }

  setTime(time) {
    this.line.style.left = `${this.#seconds ? 100 * time / this.#seconds : 0}%`;
  }

  setStretch(loop) {
    this.band.hidden = loop === null;
    if (loop === null || !this.#seconds) return;
    this.band.style.left = `${100 * loop.start / this.#seconds}%`;
    this.band.style.width = `${100 * (loop.end - loop.start) / this.#seconds}%`;
  }

  #listen(seek, stretch) {
    const at = (event) => {
      const box = this.veil.getBoundingClientRect();
      return this.#seconds * Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    };
    const dragged = (event) => {
      const pixels = Math.abs(at(event) - this.#from) * this.veil.clientWidth / this.#seconds;
      const [start, end] = [this.#from, at(event)].sort((a, b) => a - b);
      return pixels < DRAG ? null : { start, end };
    };
    this.veil.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.#seconds) return;
      this.#from = at(event);
      this.veil.setPointerCapture(event.pointerId);
    });
    this.veil.addEventListener("pointermove", (event) => {
      if (this.#from !== null && dragged(event)) this.setStretch(dragged(event));
    });
    this.veil.addEventListener("pointerup", (event) => {
      if (this.#from === null) return;
      const loop = dragged(event);
      this.#from = null;
      if (loop) stretch(loop);
      else seek(at(event));
    });
    this.veil.addEventListener("pointercancel", () => { this.#from = null; });
  }
}

function hertzAxis(name) {
  const axis = el("div", { class: name, "aria-hidden": "true" });
  axis.append(...HERTZ.map((hertz) => {
    const label = el("span", {}, hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`);
    label.style.bottom = `${100 * mel(hertz) / mel(HIGHEST)}%`;
    return label;
  }));
  return axis;
}
