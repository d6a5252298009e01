const dark = matchMedia("(prefers-color-scheme: dark)");

function draw() {
  for (const [place, figure] of Object.entries(figures)) {
    const font = { ...figure.layout.font, color: dark.matches ? "#e4e7ec" : "#1c1f24" };
    Plotly.react(place, figure.data, { ...figure.layout, font, autosize: true }, { responsive: true, displaylogo: false });
  }
}

function sort(table, column, button) {
  const head = button.closest("th");
  const down = head.getAttribute("aria-sort") !== "descending";
  for (const other of table.querySelectorAll("th")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => row.cells[column].dataset.key;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === ""); // what was not measured stays at the end
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  });
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.querySelectorAll("th button")].forEach((button, column) =>
    button.addEventListener("click", () => sort(table, column, button)),
  );
}
dark.addEventListener("change", draw);
draw();
