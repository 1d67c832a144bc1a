// Tables.

/** Create a table; rows are lists of cells. */
function simpleTable(className, headings, rows) {
  const head = headings.map((heading) => el("th", { scope: "col" }, heading));
  return el("table", { class: className },
    el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells))));
}

/**
 * Create a table that is sorted by clicks on its headings.
 *
 * A column has `label` (a list of nodes), `cell` (the cell of an item), `value` (the sort key of an
 * item: a number, text or null), `first` (order after the first click), and optionally `title` and
 * `name` (for announcements).
 */
function sortableTable(className, columns, items) {
  const buttons = columns.map((column, index) =>
    button("", { title: column.title, onclick: () => sort(index) },
      el("span", { class: "label" }, ...column.label),
      el("span", { class: "arrow", "aria-hidden": "true" })));
  const rows = items.map((item) => columns.map((column) => column.cell(item)));
  const table = simpleTable(className, buttons, rows);
  const headings = [...table.tHead.rows[0].cells];
  const entries = [...table.tBodies[0].rows].map((row, index) => ({ row, item: items[index] }));

  function sort(index) {
    const { value, first, name } = columns[index];
    const opposite = { ascending: "descending", descending: "ascending" };
    const order = opposite[headings[index].getAttribute("aria-sort")] ?? first;
    headings.forEach((heading) => heading.removeAttribute("aria-sort"));
    headings[index].setAttribute("aria-sort", order);
    const sorted = [...entries].sort((a, b) => compareKeys(value(a.item), value(b.item), order));
    table.tBodies[0].append(...sorted.map(({ row }) => row));
    announce(`Sorted by ${name ?? headings[index].textContent}, ${order}`);
  }

  return table;
}

/** Compare two keys; unknown ones come last in either order. */
function compareKeys(a, b, order) {
  if (a === null || b === null) return (a === null) - (b === null);
  const result = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  return order === "ascending" ? result : -result;
}
