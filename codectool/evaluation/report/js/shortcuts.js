// Keys that work anywhere on the page, but never while something is typed or chosen.

const KEYS = [
  ["Space", "play or pause"],
  ["0", "reference"],
  ["1 … 9", "systems, in the order of the table"],
  ["← →", "a second back or on"],
  ["n p", "next or previous clip"],
  ["l", "repeat the clip, or stop repeating"],
  ["a b x", "in the blind test: listen to A, B, X"],
  ["Shift A B", "in the blind test: answer"],
  ["?", "this list"],
];
let keysOn = true;
let keysDialog = null;

function showKeys() {
  if (keysDialog === null) {
    const on = el("input", { type: "checkbox", onchange: () => { keysOn = on.checked; } });
    on.checked = true;
    const close = el("form", { method: "dialog" }, el("button", { class: "main-button" }, "Close"));
    keysDialog = el("dialog", { "aria-labelledby": "keys-title" },
      el("h2", { id: "keys-title" }, "Keys"),
      el("table", {}, el("tbody", {}, ...KEYS.map(([keys, what]) => el("tr", {},
        el("th", { scope: "row" }, ...keys.split(" ").flatMap((key) => keyName(key))),
        el("td", {}, what))))),
      el("label", { class: "check" }, on, " keys work on the whole page"),
      close);
    document.body.append(keysDialog);
  }
  if (!keysDialog.open) keysDialog.showModal();
}

function keyName(text) {
  return text === "…" || text === "Shift" ? [text, " "] : [el("kbd", {}, text), " "];
}

function listenToKeys(player, blind) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (keysDialog?.open || typing(event)) return;
    if (event.key === "?") showKeys();
    else if (!keysOn || !(blind.running ? blind.key(event.key) : playerKey(player, event.key))) {
      return;
    }
    event.preventDefault();
  });
  // After a click the button keeps the focus, and space would press it again instead of playing.
  document.addEventListener("click", (event) => {
    const press = event.target.closest?.(".player button, .blind button");
    if (press && event.detail > 0) press.blur();
  });
}

/** Whether the element that has the focus needs this key itself. */
function typing({ target, key }) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.matches("input[type=range]")) return key.startsWith("Arrow");
  if (target.matches("input, select, textarea") || target.isContentEditable) return true;
  if (target.matches(".scroll")) return key.startsWith("Arrow") || key === " ";
  return key === " " && target.matches("button, a, summary");
}

function playerKey(player, key) {
  if (/^[0-9]$/.test(key)) {
    player.choose(Number(key));
    return true;
  }
  const keys = {
    " ": () => player.deck?.toggle(),
    ArrowLeft: () => player.transport.skip(-SKIP),
    ArrowRight: () => player.transport.skip(SKIP),
    n: () => player.step(1),
    p: () => player.step(-1),
    l: () => player.transport.toggleLoop(),
  };
  keys[key]?.();
  return key in keys;
}
