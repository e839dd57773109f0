"use strict";
// Rows: filter, order, and a few at a time. Without this script all rows are shown, worst first.
const list = document.getElementById("row-list");
if (list) {
  const rows = [...list.querySelectorAll(".row")];
  const get = (id) => document.getElementById(id);
  const tools = get("row-tools");
  const page = 20;
  let shown = page;
  tools.hidden = false;
  const orders = {
    worse: (a, b) => b.dataset.change - a.dataset.change || b.dataset.after - a.dataset.after,
    better: (a, b) => a.dataset.change - b.dataset.change || b.dataset.after - a.dataset.after,
    errors: (a, b) => b.dataset.after - a.dataset.after || b.dataset.change - a.dataset.change,
  };
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  function update() {
    const words = get("row-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const set = get("row-set").value;
    const change = get("row-change").value;
    const found = rows.filter((row) =>
      words.every((word) => texts.get(row).includes(word)) &&
      (!set || row.dataset.set === set) &&
      (!change || (change === "term" ? row.dataset.terms !== "0" : Math.sign(row.dataset.change) === Number(change))));
    found.sort(orders[get("row-order").value]);
    for (const row of rows) row.hidden = true;
    found.forEach((row, index) => { row.hidden = index >= shown; list.append(row); });
    get("row-count").textContent = `${found.length} of ${rows.length} rows`;
    const more = get("row-more");
    more.hidden = found.length <= shown;
    more.textContent = `Show ${Math.min(page, found.length - shown)} more`;
  }
  const restart = () => { shown = page; update(); };
  get("row-filter").addEventListener("input", restart);
  for (const id of ["row-set", "row-change", "row-order"]) get(id).addEventListener("change", restart);
  get("row-more").addEventListener("click", () => { shown += page; update(); });
  // One player at a time.
  document.addEventListener("play", (event) => {
    for (const player of document.querySelectorAll("audio")) if (player !== event.target) player.pause();
  }, true);
  update();
}
// Long tables: the first lines, and a button for the rest.
for (const table of document.querySelectorAll("table[data-first]")) {
  const lines = [...table.tBodies[0].rows];
  const first = Number(table.dataset.first);
  if (lines.length <= first + 5) continue;
  const button = document.createElement("button");
  let all = false;
  const show = () => {
    [...table.tBodies[0].rows].forEach((line, index) => { line.hidden = !all && index >= first; });
    button.textContent = all ? `Show the first ${first}` : `Show all ${lines.length}`;
  };
  button.addEventListener("click", () => { all = !all; show(); });
  table.addEventListener("sorted", show);
  table.parentElement.after(button);
  show();
}
// Columns that sort when their heading is pressed.
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.textContent = cell.textContent;
    cell.replaceChildren(button);
    let sign = cell.classList.contains("n") ? -1 : 1;
    button.addEventListener("click", () => {
      const value = (line) => line.cells[column].dataset.v ?? line.cells[column].textContent.trim();
      const body = table.tBodies[0];
      const compare = cell.classList.contains("n")
        ? (a, b) => Number(value(a)) - Number(value(b))
        : (a, b) => value(a).localeCompare(value(b));
      const lines = [...body.rows].sort((a, b) => sign * compare(a, b));
      [...table.tHead.rows[0].cells].forEach((other) => other.removeAttribute("aria-sort"));
      cell.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      sign = -sign;
      body.append(...lines);
      table.dispatchEvent(new Event("sorted"));
    });
  });
}
