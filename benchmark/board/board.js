// Sort a table by the column whose heading is clicked; anchor rows stay at the end.
for (const heading of document.querySelectorAll("thead th")) {
  heading.addEventListener("click", () => {
    const body = heading.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const falling = heading.dataset.order !== "falling";
    heading.dataset.order = falling ? "falling" : "rising";
    const value = (row) => {
      const text = row.cells[column].textContent.trim();
      const number = parseFloat(text);
      return Number.isNaN(number) ? text : number;
    };
    const rows = [...body.rows].filter((row) => !row.classList.contains("anchor"));
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const order = typeof x === typeof y ? (x > y) - (x < y) : typeof x === "number" ? 1 : -1;
      return falling ? -order : order;
    });
    body.prepend(...rows);
  });
}
