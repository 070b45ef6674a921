"use strict";
// The page is whole without this: here are sorting, search, colours and zoom of the network, and layers that open when linked to.
for (const element of document.querySelectorAll("[data-needs-script]")) element.hidden = false;

const showTarget = () => {
  const target = location.hash ? document.getElementById(location.hash.slice(1)) : null;
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", showTarget);
showTarget();

const setAll = (open) => {
  for (const layer of document.querySelectorAll("details.layer")) layer.open = open;
};
document.getElementById("open-all")?.addEventListener("click", () => setAll(true));
document.getElementById("close-all")?.addEventListener("click", () => setAll(false));

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") !== "ascending";
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = (a, b) => {
        if ((a === "") !== (b === "")) return a === "" ? 1 : -1; // what was not measured stays at the end
        const [x, y] = [Number(a), Number(b)];
        const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
        return ascending ? order : -order;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
    });
  });
}

const search = document.getElementById("search");
if (search) {
  const rows = [...document.querySelectorAll("svg.network .row")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const count = document.getElementById("found");
  let shown = -1;
  const matches = () => rows.filter((row) => row.classList.contains("found"));
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, i) => row.classList.toggle("found", words.length > 0 && words.every((w) => texts[i].includes(w))));
    shown = -1;
    count.textContent = words.length ? `${matches().length} of ${rows.length}` : "";
  });
  search.addEventListener("keydown", (event) => {
    const found = matches();
    if (event.key !== "Enter" || !found.length) return;
    shown = (shown + (event.shiftKey ? found.length - 1 : 1)) % found.length;
    found[shown].scrollIntoView({ block: "nearest" });
    count.textContent = `${shown + 1} of ${found.length}`;
  });
}

const network = document.querySelector("svg.network");
document.getElementById("colour")?.addEventListener("change", (event) => {
  network.dataset.colour = event.target.value;
  for (const legend of document.querySelectorAll(".legend")) legend.hidden = legend.dataset.by !== event.target.value;
});
const whole = network && { width: network.viewBox.baseVal.width, height: network.viewBox.baseVal.height };
const zoomTo = (scale) => {
  const canvas = document.getElementById("canvas");
  const middle = (canvas.scrollTop + canvas.clientHeight / 2) / canvas.scrollHeight;
  const bounded = Math.min(Math.max(scale, 0.02), 4);
  network.setAttribute("width", whole.width * bounded);
  network.setAttribute("height", whole.height * bounded);
  canvas.scrollTop = middle * canvas.scrollHeight - canvas.clientHeight / 2;
};
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => {
    const canvas = document.getElementById("canvas");
    const fit = Math.min(canvas.clientWidth / whole.width, (0.7 * innerHeight) / whole.height);
    zoomTo(button.dataset.zoom === "fit" ? fit : (network.clientWidth / whole.width) * Number(button.dataset.zoom));
  });
}
