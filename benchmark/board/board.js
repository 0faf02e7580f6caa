// Make every table of the board sortable by its headings and filterable by column and by any word (DataTables).
window.tables.then(({ ITable }) => {
  for (const table of document.querySelectorAll("table")) {
    new ITable(table, {
      paging: false,
      info: false,
      order: [],
      autoWidth: false,
      layout: { topStart: null, topEnd: "search" },
      columnControl: ["order", ["search"]],
      ordering: { indicators: false, handler: true },
    });
  }
  document.body.dataset.ready = "tables";
});
