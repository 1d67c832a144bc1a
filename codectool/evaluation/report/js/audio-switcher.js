// Plays several tracks in parallel and lets one of them be heard.
//
// Switching is a short cross-fade at the same position, without waiting for a decoder. Audio
// elements are used because a local page may play the files beside it, but Web Audio may not read
// them.

const FADE_MS = 30;
const FADE_STEP_MS = 5;
const MAX_DRIFT = 0.02; // in seconds; tracks further apart are realigned before a switch
const END_TOLERANCE = 0.03; // in seconds; playing from here starts at the beginning
const SEEK_TIMEOUT_MS = 2000; // a track that cannot seek must not block the others

class AudioSwitcher {
  #request = 0; // a newer play, pause or seek supersedes older ones
  #target = null; // position in seconds while seeking
  #timer = null;
  #endFade = null;

  /** URLs may be null; `onChange` is called when there is something new to show. */
  constructor(urls, onChange = () => {}) {
    this.onChange = onChange;
    this.playing = false;
    this.loop = null; // range in seconds: start, end
    this.tracks = urls.map((url) => (url === null ? null : this.#createTrack(url)));
    this.selected = Math.max(0, this.tracks.findIndex((track) => track !== null));
    this.loaded = Promise.all(this.tracks.map((track, index) => this.#load(track, index)));
  }

  get track() {
    return this.tracks[this.selected] ?? null;
  }

  get #available() {
    return this.tracks.filter((track) => track !== null);
  }

  get time() {
    return this.#target ?? this.track?.currentTime ?? 0;
  }

  get duration() {
    const seconds = this.track?.duration;
    return Number.isFinite(seconds) ? seconds : 0;
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  async play() {
    if (this.playing || this.track === null) return;
    this.playing = true;
    const { start, end } = this.loop ?? { start: 0, end: this.duration };
    const outside = this.time >= end - END_TOLERANCE || this.time < start;
    await this.seek(outside ? start : this.time);
  }

  async pause() {
    this.playing = false;
    await this.seek(this.time);
  }

  /** Fade out, move all tracks, and continue if playing. */
  async seek(time) {
    this.#request += 1;
    const request = this.#request;
    const superseded = () => request !== this.#request;
    this.#target = Math.max(0, this.duration ? Math.min(time, this.duration) : time);
    this.onChange();
    await this.loaded;
    if (superseded()) return;
    await this.#fade(null);
    if (superseded()) return;
    this.#available.forEach((track) => track.pause());
    await Promise.all(this.#available.map((track) => moveTrack(track, this.#target)));
    if (superseded()) return;
    if (this.playing) await this.#startTracks();
    if (superseded()) return;
    this.#target = null;
    this.onChange();
    if (this.playing) await this.#fade(this.track);
  }

  /** Hear another track from the same position. */
  async select(index) {
    const next = this.tracks[index] ?? null;
    if (next === null || index === this.selected) return;
    const previous = this.track;
    const request = this.#request;
    this.selected = index;
    this.onChange();
    if (!this.playing || this.#target !== null) return; // a running seek uses the selected track
    if (previous !== null && Math.abs(next.currentTime - previous.currentTime) > MAX_DRIFT) {
      await moveTrack(next, previous.currentTime + MAX_DRIFT / 2);
    }
    if (request === this.#request && index === this.selected) await this.#fade(next);
  }

  /** Return to the start at the end of a loop; called for every animation frame. */
  repeatLoop() {
    if (this.playing && this.loop && this.#target === null && this.time >= this.loop.end) {
      this.seek(this.loop.start);
    }
  }

  close() {
    this.#request += 1;
    this.playing = false;
    clearInterval(this.#timer);
    this.#endFade?.();
    for (const track of this.#available) {
      track.pause();
      track.removeAttribute("src");
      track.load();
    }
  }

  #createTrack(url) {
    const track = new Audio();
    track.preload = "auto";
    track.muted = true;
    track.volume = 0;
    track.src = url;
    track.addEventListener("ended", () => this.#trackEnded(track));
    return track;
  }

  async #load(track, index) {
    if (track === null) return;
    const playable = await new Promise((resolve) => {
      track.addEventListener("loadedmetadata", () => resolve(true), { once: true });
      track.addEventListener("error", () => resolve(false), { once: true });
    });
    if (!playable) this.tracks[index] = null;
    this.onChange();
  }

  #trackEnded(track) {
    if (track !== this.track || !this.playing || this.#target !== null) return;
    if (this.loop) this.seek(this.loop.start);
    else {
      this.playing = false;
      this.onChange();
    }
  }

  async #startTracks() {
    try {
      await Promise.all(this.#available.map((track) => track.play()));
    } catch (error) {
      if (error.name === "AbortError") return; // stopped by a newer request
      this.playing = false;
      announce("The browser cannot play this audio.");
    }
  }

  /** Fade one track in and the others out; null fades all of them out. */
  #fade(audible) {
    clearInterval(this.#timer);
    this.#endFade?.();
    return new Promise((resolve) => {
      this.#endFade = resolve;
      const step = () => {
        const done = this.#available.map((track) => fadeStep(track, track === audible ? 1 : 0));
        if (!done.every(Boolean)) return;
        clearInterval(this.#timer);
        resolve();
      };
      this.#timer = setInterval(step, FADE_STEP_MS);
      step();
    });
  }
}

/** Move the volume towards a goal; return whether it is reached. */
function fadeStep(track, goal) {
  const step = FADE_STEP_MS / FADE_MS;
  const volume = Math.max(track.volume - step, Math.min(track.volume + step, goal));
  track.volume = volume;
  const fixed = Math.abs(track.volume - volume) > 0.01; // phones can only mute
  track.muted = (fixed ? goal : volume) === 0;
  return fixed || volume === goal;
}

function moveTrack(track, time) {
  if (!track.seeking && Math.abs(track.currentTime - time) < 1e-4) return Promise.resolve();
  return new Promise((resolve) => {
    track.addEventListener("seeked", resolve, { once: true });
    setTimeout(resolve, SEEK_TIMEOUT_MS);
    track.currentTime = time;
  });
}
