// Links to sounds and pictures. Those within the page are unpacked only for the clip that is open.

const KINDS = {
  sound: { type: "audio/flac", suffix: "flac" },
  image: { type: "image/png", suffix: "png" },
};

/** Settled when the whole page is there: its blocks stand behind this script. */
const wholePage = new Promise((resolve) => {
  if (document.readyState === "complete") resolve();
  else document.addEventListener("DOMContentLoaded", () => resolve(), { once: true });
});

/** Lends links until it is closed. */
class Media {
  constructor() {
    this.lent = [];
  }

  /** A link, or null where there is nothing; number 0 is the reference. */
  async link(kind, clip, number) {
    await wholePage;
    if (!heard(clip, number)) return null;
    const { type, suffix } = KINDS[kind];
    if (facts.folder !== null) return `${facts.folder}${clip}-${number}.${suffix}`;
    const block = document.getElementById(`${kind}-${clip}-${number}`);
    if (block === null) return null;
    const bytes = Uint8Array.from(atob(block.textContent), (mark) => mark.charCodeAt(0));
    const url = URL.createObjectURL(new Blob([bytes], { type }));
    this.lent.push(url);
    return url;
  }

  close() {
    this.lent.forEach((url) => URL.revokeObjectURL(url));
    this.lent = [];
  }
}

/** Whether there is something to hear; of system 0, the reference, there always should be. */
function heard(clip, number) {
  return number === 0 || facts.systems[number - 1].scores[clip].heard;
}

function nameOf(number) {
  return number === 0 ? REFERENCE : facts.systems[number - 1].name;
}
