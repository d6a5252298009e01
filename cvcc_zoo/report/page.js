const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function draw() {
  for (const [place, figure] of Object.entries(figures)) {
    const layout = { ...structuredClone(figure.layout), autosize: true };
    layout.font.color = colour("--ink");
    if (layout.title.subtitle) layout.title.subtitle.font.color = colour("--quiet");
    const ink = { textfont: { color: colour("--ink") } }; // Plotly would choose it for cells on white
    const data = figure.data.map((trace) => (trace.type === "heatmap" ? { ...trace, ...ink } : trace));
    const buttons = [["toImage", "resetScale2d"]]; // more would cover the title; dragging zooms in
    Plotly.react(place, data, layout, { responsive: true, displaylogo: false, modeBarButtons: buttons });
  }
}

function hint() {
  for (const each of document.querySelectorAll(".wide")) each.toggleAttribute("data-more", each.scrollWidth > each.clientWidth + 1);
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
for (const each of document.querySelectorAll(".wide")) new ResizeObserver(hint).observe(each); // at once as well
draw();
