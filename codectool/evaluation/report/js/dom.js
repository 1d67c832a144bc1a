// Elements. What comes from files and from the command line becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: attributes named `on...` are listeners; null and false are left out. */
function el(name, attributes = {}, ...children) {
  return furnish(document.createElement(name), attributes, children);
}

/** Likewise within a drawing. */
function draw(name, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, name), attributes, children);
}

function furnish(element, attributes, children) {
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

/** What only a screen reader says. */
function unseen(text) {
  return el("span", { class: "unseen" }, text);
}

let selects = 0;

/** A select with its label; options are pairs of a value and a text. */
function select(label, options, value, changed) {
  const id = `select-${selects += 1}`;
  const field = el("select", { id, onchange: () => changed(field.value) });
  field.append(...options.map(([key, text]) => el("option", { value: key }, text)));
  field.value = value;
  return { field, element: el("div", { class: "field" }, el("label", { for: id }, label), field) };
}

/** A container for what may be wider than the page. */
function scroller(label, ...children) {
  return el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label },
    ...children);
}

/** A name from a file may be long, and is best broken behind the marks that it has. */
function breakable(name) {
  const parts = name.split(/(?<=[/_\-.@ ])/);
  return el("span", {}, ...parts.flatMap((part, index) => (index ? [el("wbr"), part] : [part])));
}

function say(text) {
  document.getElementById("state").textContent = text;
}

/** A value that several parts of the page show and set. */
class Choice {
  constructor(value) {
    this.value = value;
    this.listeners = [];
  }

  set(value) {
    this.value = value;
    for (const listener of this.listeners) listener(value);
  }

  /** Call now and after every change. */
  follow(listener) {
    this.listeners.push(listener);
    listener(this.value);
  }
}
