// DOM helpers. Names from files and the command line are inserted as text, never as markup.

/** Create an HTML element: attributes `on...` are listeners; null and false are left out. */
function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Create an SVG element. */
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? "" : String(value));
    }
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function button(text, attributes, ...children) {
  return el("button", { type: "button", ...attributes }, text, ...children);
}

/** Text for screen readers only. */
function hiddenText(text) {
  return el("span", { class: "visually-hidden" }, text);
}

let numSelects = 0;

/** Create a select with a label; options are pairs of value and text. */
function labelledSelect(label, options, value, onChange) {
  const id = `select-${numSelects += 1}`;
  const input = el("select", { id, onchange: () => onChange(input.value) },
    ...options.map(([key, text]) => el("option", { value: key }, text)));
  input.value = value;
  return { input, element: el("div", { class: "field" }, el("label", { for: id }, label), input) };
}

/** Create a container that scrolls content wider than the page. */
function scrollRegion(label, ...children) {
  return el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label },
    ...children);
}

/** Let a long name break after punctuation. */
function breakable(name) {
  return el("span", {}, ...name.split(/(?<=[/_\-.@ ])/).flatMap((part) => [part, el("wbr")]));
}

/** Announce a change to screen readers. */
function announce(text) {
  document.getElementById("status").textContent = text;
}

/** A value with listeners. */
class Observable {
  #listeners = [];

  constructor(value) {
    this.value = value;
  }

  set(value) {
    this.value = value;
    this.#listeners.forEach((listener) => listener(value));
  }

  /** Call a listener now and after every change. */
  subscribe(listener) {
    this.#listeners.push(listener);
    listener(this.value);
  }
}
