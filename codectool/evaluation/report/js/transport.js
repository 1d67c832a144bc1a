// Playback of one clip with its controls, for the player and the blind test.

const SKIP_SECONDS = 1;

class Transport {
  #request = 0; // a newer `open` or `close` supersedes older ones

  /** `onChange` is called when the state changes, and for every frame while playing. */
  constructor(onChange) {
    this.onChange = onChange;
    this.switcher = new AudioSwitcher([]);
    this.playButton = button("Play", { class: "primary", onclick: () => this.switcher.toggle() });
    this.position = el("input", { type: "range", min: 0, max: 1, step: "any", value: 0,
      "aria-label": "Position",
      oninput: () => this.switcher.seek(Number(this.position.value)) });
    this.timeText = el("span", { class: "time" });
    this.loopButton = button("Loop", { onclick: () => this.toggleLoop() });
    this.element = el("div", { class: "transport" },
      this.playButton, this.position, this.timeText, this.loopButton);
    this.#show();
    const step = () => {
      this.switcher.repeatLoop();
      if (this.switcher.playing) this.#update();
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  /** Open the audio of a clip in some systems; return false if superseded. */
  async open(clip, systems) {
    this.close();
    const request = this.#request;
    const urls = await Promise.all(systems.map((system) => mediaUrl("audio", clip, system)));
    if (request !== this.#request) return false;
    this.switcher = new AudioSwitcher(urls, () => this.#update());
    this.#update();
    return true;
  }

  close() {
    this.#request += 1;
    this.switcher.close();
    this.switcher = new AudioSwitcher([]);
  }

  /** Loop the whole clip, or stop looping. */
  toggleLoop() {
    const { loop, duration } = this.switcher;
    this.switcher.loop = loop ? null : { start: 0, end: duration };
    this.#update();
  }

  /** Handle a key of the player and the blind test; return whether it has a function. */
  key(key) {
    const { switcher } = this;
    const actions = {
      " ": () => switcher.toggle(),
      ArrowLeft: () => switcher.seek(switcher.time - SKIP_SECONDS),
      ArrowRight: () => switcher.seek(switcher.time + SKIP_SECONDS),
      l: () => this.toggleLoop(),
    };
    actions[key]?.();
    return key in actions;
  }

  #update() {
    this.#show();
    this.onChange();
  }

  #show() {
    const { playing, track, loop, time, duration } = this.switcher;
    this.playButton.textContent = playing ? "Pause" : "Play";
    this.playButton.disabled = track === null;
    this.loopButton.setAttribute("aria-pressed", String(loop !== null));
    this.position.max = duration || 1;
    this.position.value = time;
    this.position.setAttribute("aria-valuetext", `${formatTime(time)} of ${formatTime(duration)}`);
    this.timeText.textContent = `${formatTime(time)} / ${formatTime(duration)}`;
  }
}
