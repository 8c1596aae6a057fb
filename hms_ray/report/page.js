"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const printed = window.matchMedia("print");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

  // Text and axes in the page's colours; figures bring none of their own.
  function themed(layout) {
    const isDark = dark.matches && !printed.matches;
    const ink = isDark ? "#e6e9ed" : "#1b1f24";
    const line = isDark ? "#363c45" : "#d7dbe0";
    const made = { "font.color": ink, "hoverlabel.bgcolor": isDark ? "#1d2127" : "#ffffff", "hoverlabel.font.color": ink };
    for (const name of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(name)) {
        for (const part of ["gridcolor", "linecolor", "zerolinecolor"]) made[name + "." + part] = line;
      }
    }
    return made;
  }

  function nested(flat, layout) {
    const made = structuredClone(layout);
    for (const [path, value] of Object.entries(flat)) {
      const parts = path.split(".");
      let place = made;
      for (const part of parts.slice(0, -1)) place = place[part] ??= {};
      place[parts.at(-1)] = value;
    }
    return made;
  }

  const content = (plot) => JSON.parse(document.getElementById(plot.dataset.figure).textContent);
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

  function draw(plot) {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "1";
    const figure = content(plot);
    const layout = { xaxis: {}, yaxis: {}, ...figure.layout };
    if (calm.matches) layout.transition = { duration: 0 };
    Plotly.newPlot(plot, figure.data, nested(themed(layout), layout), config);
  }

  const plots = [...document.querySelectorAll(".plot")];
  const drawAll = () => plots.forEach(draw);
  const theme = () => plots.filter((plot) => plot.dataset.drawn).forEach((plot) => Plotly.relayout(plot, themed(plot.layout)));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    }
  }, { rootMargin: "300px" });
  plots.forEach((plot) => seen.observe(plot));
  dark.addEventListener("change", theme);
  printed.addEventListener("change", () => { if (printed.matches) drawAll(); theme(); });
  window.addEventListener("beforeprint", () => {
    drawAll();
    document.querySelectorAll("details.numbers").forEach((one) => { one.open = true; });
  });

  // A list of choices beside a figure: each has its own traces and marks.
  for (const list of document.querySelectorAll("select[data-plot]")) {
    list.addEventListener("change", () => {
      const plot = document.getElementById(list.dataset.plot);
      draw(plot);
      const choice = JSON.parse(document.getElementById(list.dataset.choices).textContent)[list.value];
      const layout = { ...plot.layout, ...choice.layout };
      Plotly.react(plot, choice.data, nested(themed(layout), layout), config);
      plot.setAttribute("aria-label", plot.dataset.about + ": " + list.selectedOptions[0].text);
    });
  }

  // Tables sorted by a button in the heading; cells without a value stay last.
  const value = (row, place) => {
    const cell = row.cells[place];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    if (text === "" || text === "-") return null;
    return Number.isNaN(Number(text)) ? text.toLowerCase() : Number(text);
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const rows = [...head.closest("table").tBodies[0].rows];
      const falls = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      rows.sort((one, two) => {
        const [a, b] = [value(one, head.cellIndex), value(two, head.cellIndex)];
        if (a === null || b === null) return (a === null) - (b === null);
        return falls ? compare(b, a) : compare(a, b);
      });
      head.closest("table").tBodies[0].append(...rows);
    });
  }
})();
