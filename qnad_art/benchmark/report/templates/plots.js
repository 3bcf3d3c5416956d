"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const config = { responsive: true, displayModeBar: false };

  // Plots take their colours from the page, so they are dark when it is.
  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: colour("--line"), linecolor: colour("--muted") };
    const errors = { color: colour("--text") };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: colour("--text"), family: getComputedStyle(document.body).fontFamily, size: 12 },
        colorway: [colour("--muted")],
        hoverlabel: { bgcolor: colour("--surface"), bordercolor: colour("--muted"), font: { color: colour("--text") } },
        xaxis: axis,
        yaxis: axis,
      },
      data: { bar: [{ error_y: errors }] },
    };
  };

  const draw = (plot) => {
    const { data, layout } = figures[plot.dataset.figure];
    Plotly.react(plot, data, { ...layout, template: theme() }, config);
  };

  // One after the other, so that the page can be read meanwhile.
  let waiting = [];
  const next = () => {
    const plot = waiting.shift();
    if (plot === undefined) return;
    draw(plot);
    setTimeout(next);
  };
  const drawAll = () => {
    const idle = waiting.length === 0;
    waiting = [...plots];
    if (idle) next();
  };

  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      for (const plot of button.closest("figure").querySelectorAll(".plot")) {
        for (const trace of figures[plot.dataset.figure].data) {
          if (trace.meta === button.dataset.series) trace.visible = shown;
        }
        draw(plot);
      }
    });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
})();
