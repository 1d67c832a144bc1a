// Tables that are sorted by a click on a heading.

/**
 * Build head and body of a table.
 *
 * Columns have `label` (nodes), `key` (of a row: a number, a text or null), `first` (the order of
 * the first click) and may have `title`, `name` (what is announced) and `class`. Rows have `cells`,
 * a list of elements.
 */
function sortable(table, columns, rows) {
  const body = el("tbody", {}, ...rows.map((row) => el("tr", row.attributes ?? {}, ...row.cells)));
  const lines = new Map(rows.map((row, index) => [row, body.children[index]]));
  const heads = columns.map((column, index) => {
    const arrow = el("span", { class: "arrow", "aria-hidden": "true" });
    const press = button("", { title: column.title, onclick: () => sort(index) },
      el("span", { class: "label" }, ...column.label), arrow);
    return el("th", { scope: "col", class: column.class ?? null }, press);
  });

  function sort(index) {
    const head = heads[index];
    const column = columns[index];
    const other = { ascending: "descending", descending: "ascending" };
    const order = other[head.getAttribute("aria-sort")] ?? column.first;
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sorted = [...rows].sort((a, b) => ordered(column.key(a), column.key(b), order));
    body.append(...sorted.map((row) => lines.get(row)));
    say(`Sorted by ${column.name ?? head.textContent}, ${order}`);
  }

  table.append(el("thead", {}, el("tr", {}, ...heads)), body);
}

/** Order of two keys; what is unknown comes last in either order. */
function ordered(a, b, order) {
  if (a === null || b === null) return (a === null) - (b === null);
  const sign = order === "ascending" ? 1 : -1;
  return sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
}

function worstFirst(metric) {
  return metric.better === "higher" ? "ascending" : "descending";
}

function bestFirst(metric) {
  return metric.better === "higher" ? "descending" : "ascending";
}
