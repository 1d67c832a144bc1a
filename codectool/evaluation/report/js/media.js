// URLs of audio and spectrograms.

const MEDIA = {
  audio: { type: "audio/flac", suffix: "flac" },
  spectrogram: { type: "image/png", suffix: "png" },
};
const objectUrls = new Map();

/** Resolved when the page is complete: embedded files follow this script. */
const pageComplete = new Promise((resolve) => {
  if (document.readyState === "complete") resolve();
  else document.addEventListener("DOMContentLoaded", resolve, { once: true });
});

function hasAudio(clip, system) {
  return system === 0 || evaluation.systems[system - 1].scores[clip].has_audio;
}

/** Return the URL of an audio file or spectrogram, or null; system 0 is the reference. */
async function mediaUrl(kind, clip, system) {
  await pageComplete;
  if (!hasAudio(clip, system)) return null;
  const { type, suffix } = MEDIA[kind];
  if (evaluation.audio_url !== null) return `${evaluation.audio_url}${clip}-${system}.${suffix}`;
  const id = `${kind}-${clip}-${system}`;
  const embedded = document.getElementById(id);
  if (embedded !== null) {
    const bytes = Uint8Array.from(atob(embedded.textContent), (byte) => byte.charCodeAt(0));
    objectUrls.set(id, URL.createObjectURL(new Blob([bytes], { type })));
    embedded.remove(); // from now on, the blob holds the data
  }
  return objectUrls.get(id) ?? null;
}
