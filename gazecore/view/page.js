
// Enlarges a tile: its layers over each other, each of which can be switched.
const viewer = document.getElementById("viewer");
const stack = document.getElementById("viewer-stack");
const switches = document.getElementById("viewer-layers");
const off = new Set(["density"]);
let opened = null;

const siblings = () => [...opened.closest("[data-tiles]").querySelectorAll(".tile")];

function peaksOf(tile) {
  const marks = document.createElement("div");
  marks.className = "layer peaks";
  marks.dataset.layer = "peaks";
  const places = (tile.dataset.peaks || "").trim().split(" ").map(Number);
  for (let i = 0; i + 1 < places.length; i += 2) {
    const mark = document.createElement("span");
    mark.className = "peak";
    mark.textContent = i / 2 + 1;
    mark.style.left = `${100 * places[i]}%`;
    mark.style.top = `${100 * places[i + 1]}%`;
    marks.append(mark);
  }
  return marks.childElementCount ? [marks] : [];
}

function show(tile) {
  opened = tile;
  document.getElementById("viewer-name").textContent = tile.dataset.name;
  const hasImage = tile.querySelector(".image") !== null;
  document.getElementById("viewer-text").textContent =
    tile.dataset.text + (hasImage ? "" : ". The image cannot be read: the density alone");
  const pictures = [...tile.querySelectorAll(".layer")].map((layer) => {
    const copy = layer.cloneNode();
    copy.loading = "eager";
    return copy;
  });
  const layers = [...pictures, ...peaksOf(tile)];
  stack.replaceChildren(...layers);
  const boxes = layers.map((layer) => {
    const name = layer.dataset.layer;
    const needed = name === "density" && !hasImage;
    const box = document.createElement("input");
    box.type = "checkbox";
    box.name = name;
    box.checked = needed || !off.has(name);
    layer.classList.toggle("off", !box.checked);
    const label = document.createElement("label");
    label.append(box, name);
    return label;
  });
  switches.replaceChildren(switches.querySelector("legend"), ...boxes);
  const all = siblings();
  viewer.querySelector("[data-do=before]").disabled = all[0] === tile;
  viewer.querySelector("[data-do=after]").disabled = all.at(-1) === tile;
  if (!viewer.open) viewer.showModal();
}

function step(by) {
  const all = siblings();
  const next = all[all.indexOf(opened) + by];
  if (!next) return;
  if (by > 0 && next === all.at(-1)) opened.closest("[data-tiles]").dispatchEvent(new Event("more"));
  show(next);
}

document.addEventListener("click", (event) => {
  const tile = event.target.closest(".tile");
  if (tile) show(tile);
  const button = event.target.closest("[data-do]");
  if (button?.dataset.do === "close" || event.target === viewer) viewer.close();
  if (button?.dataset.do === "before") step(-1);
  if (button?.dataset.do === "after") step(1);
});
switches.addEventListener("change", ({ target }) => {
  off[target.checked ? "delete" : "add"](target.name);
  for (const layer of stack.children) {
    if (layer.dataset.layer === target.name) layer.classList.toggle("off", !target.checked);
  }
});
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
viewer.addEventListener("close", () => opened?.isConnected && opened.focus());
