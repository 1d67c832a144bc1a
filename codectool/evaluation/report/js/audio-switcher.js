// Several sounds that run side by side, of which one is heard at a time.
//
// All of them play; what is not chosen is silent. So a switch is a short cross-fade at the same
// place, without waiting for a decoder. Audio elements rather than Web Audio, since a page that is
// a file may play the files beside it, but may not read them.

const FADE_MS = 30;
const FADE_STEP_MS = 5;
const DRIFT = 0.02; // seconds apart that are put right before a switch
const NEAR_END = 0.03;

class Deck {
  #turn = 0; // a later request makes an earlier one give up
  #target = null; // where the sounds are being moved to
  #timer = null;
  #faded = null;

  /** Links may be null; `changed` is called whenever there is something new to show. */
  constructor(urls, changed) {
    this.changed = changed;
    this.playing = false;
    this.loop = null;
    this.sounds = urls.map((url) => (url === null ? null : this.#open(url)));
    this.chosen = Math.max(0, this.sounds.findIndex((sound) => sound !== null));
    this.loaded = Promise.all(this.sounds.map((sound, index) => this.#load(sound, index)));
  }

  get lead() {
    return this.sounds[this.chosen] ?? null;
  }

  get time() {
    return this.#target ?? this.lead?.currentTime ?? 0;
  }

  get seconds() {
    const seconds = this.lead?.duration;
    return Number.isFinite(seconds) ? seconds : 0;
  }

  async play() {
    if (this.playing || this.lead === null) return;
    this.playing = true;
    const { start, end } = this.loop ?? { start: 0, end: this.seconds };
    const outside = this.time >= end - NEAR_END || (this.loop && this.time < start);
    await this.#move(outside ? start : this.time);
  }

  async pause() {
    this.playing = false;
    await this.#move(this.time);
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  seek(time) {
    return this.#move(time);
  }

  /** Hear another sound from where the last one was. */
  async choose(index) {
    const next = this.sounds[index] ?? null;
    if (next === null || index === this.chosen) return;
    const before = this.lead;
    const turn = this.#turn;
    this.chosen = index;
    this.changed();
    if (!this.playing || this.#target !== null) return; // the move that is under way will hear it
    if (before !== null && Math.abs(next.currentTime - before.currentTime) > DRIFT) {
      await moved(next, before.currentTime + DRIFT / 2);
    }
    if (turn === this.#turn && index === this.chosen) await this.#fade();
  }

  /** To be called often: goes back at the end of a loop. */
  tick() {
    if (this.playing && this.loop && this.#target === null && this.time >= this.loop.end) {
      this.#move(this.loop.start);
    }
  }

  close() {
    this.#turn += 1;
    this.playing = false;
    clearInterval(this.#timer);
    this.#faded?.();
    for (const sound of this.sounds.filter(Boolean)) {
      sound.pause();
      sound.removeAttribute("src");
      sound.load();
    }
  }

  #open(url) {
    const sound = new Audio();
    sound.preload = "auto";
    sound.muted = true;
    sound.volume = 0;
    sound.src = url;
    sound.addEventListener("ended", () => this.#ended(sound));
    return sound;
  }

  async #load(sound, index) {
    if (sound === null) return;
    const good = await new Promise((resolve) => {
      sound.addEventListener("loadedmetadata", () => resolve(true), { once: true });
      sound.addEventListener("error", () => resolve(false), { once: true });
    });
    if (!good) this.sounds[index] = null;
    this.changed();
  }

  #ended(sound) {
    if (sound !== this.lead || !this.playing || this.#target !== null) return;
    if (this.loop) {
      this.#move(this.loop.start);
      return;
    }
    this.playing = false;
    this.changed();
  }

  /** Everything but a switch: fade out, go there with all sounds, and play on if we play. */
  async #move(time) {
    const turn = ++this.#turn;
    const late = () => turn !== this.#turn;
    this.#target = Math.max(0, this.seconds ? Math.min(time, this.seconds) : time);
    this.changed();
    await this.loaded;
    if (late()) return;
    await this.#fade(true);
    if (late()) return;
    const sounds = this.sounds.filter(Boolean);
    sounds.forEach((sound) => sound.pause());
    await Promise.all(sounds.map((sound) => moved(sound, this.#target)));
    if (late()) return;
    if (this.playing) await this.#start(sounds);
    if (late()) return;
    this.#target = null;
    this.changed();
    if (this.playing) await this.#fade();
  }

  async #start(sounds) {
    try {
      await Promise.all(sounds.map((sound) => sound.play()));
    } catch (error) {
      if (error.name === "AbortError") return; // a later request stopped it
      this.playing = false;
      say("The browser does not play this sound.");
    }
  }

  /** Bring the chosen sound up and the others down; or all of them down. */
  #fade(silence = false) {
    clearInterval(this.#timer);
    this.#faded?.();
    return new Promise((resolve) => {
      this.#faded = resolve;
      const step = () => {
        const still = this.sounds.filter(Boolean).filter((sound) => !faded(sound,
          !silence && sound === this.lead ? 1 : 0));
        if (still.length > 0) return;
        clearInterval(this.#timer);
        resolve();
      };
      this.#timer = setInterval(step, FADE_STEP_MS);
      step();
    });
  }
}

/** One step towards a volume; whether it is reached. Phones cannot set it, but can mute. */
function faded(sound, goal) {
  const gap = goal - sound.volume;
  const next = Math.abs(gap) < 1e-3 ? goal
    : sound.volume + Math.sign(gap) * Math.min(Math.abs(gap), FADE_STEP_MS / FADE_MS);
  sound.volume = next;
  sound.muted = next === 0;
  return next === goal || Math.abs(sound.volume - next) > 0.01;
}

function moved(sound, time) {
  if (!sound.seeking && Math.abs(sound.currentTime - time) < 1e-4) return Promise.resolve();
  return new Promise((resolve) => {
    sound.addEventListener("seeked", resolve, { once: true });
    setTimeout(resolve, 2000); // a sound that cannot go there must not stop the others
    sound.currentTime = time;
  });
}
