// Keyboard shortcuts for the whole page, except while a form field needs the key.

const SHORTCUTS = [
  ["Space", "play or pause"],
  ["0", "reference"],
  ["1 … 9", "systems, in the order of the table"],
  ["← →", "one second back or forward"],
  ["n p", "next or previous clip"],
  ["l", "loop the clip, or stop looping"],
  ["a b x", "blind test: listen to A, B or X"],
  ["Shift A B", "blind test: answer A or B"],
  ["?", "this list"],
];
let shortcutsEnabled = true;
let shortcutsDialog = null;

function showShortcuts() {
  if (shortcutsDialog === null) {
    shortcutsDialog = createShortcutsDialog();
    document.body.append(shortcutsDialog);
  }
  if (!shortcutsDialog.open) shortcutsDialog.showModal();
}

function createShortcutsDialog() {
  const enabled = el("input", { type: "checkbox", checked: true,
    onchange: () => { shortcutsEnabled = enabled.checked; } });
  const keyName = (key) => (key === "…" ? key : el("kbd", {}, key));
  const rows = SHORTCUTS.map(([keys, action]) => el("tr", {},
    el("th", { scope: "row" }, ...keys.split(" ").flatMap((key) => [keyName(key), " "])),
    el("td", {}, action)));
  return el("dialog", { "aria-labelledby": "shortcuts-title" },
    el("h2", { id: "shortcuts-title" }, "Keyboard shortcuts"),
    el("table", {}, el("tbody", {}, ...rows)),
    el("label", { class: "checkbox" }, enabled, " Enable shortcuts"),
    el("form", { method: "dialog" }, el("button", { class: "primary" }, "Close")));
}

function listenToShortcuts(player, blindTest) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (shortcutsDialog?.open || needsKey(event)) return;
    if (event.key === "?") showShortcuts();
    else if (!shortcutsEnabled || !(blindTest.running ? blindTest : player).key(event.key)) return;
    event.preventDefault();
  });
  // A clicked button keeps the focus, and the space key would press it again.
  document.addEventListener("click", (event) => {
    const clicked = event.target.closest?.(".player button, .blind-test button");
    if (clicked && event.detail > 0) clicked.blur();
  });
}

/** Whether the focused element needs the key itself. */
function needsKey({ target, key }) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.matches("input[type=range]")) return key.startsWith("Arrow");
  if (target.matches("input, select, textarea")) return true;
  if (target.matches(".scroll")) return key.startsWith("Arrow") || key === " ";
  return key === " " && target.matches("button, a");
}
