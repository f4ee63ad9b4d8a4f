
// The images of a run: searched, sorted, filtered, and drawn as far as somebody scrolls.
const run = JSON.parse(document.getElementById("run").textContent);
const embedded = document.getElementById("pictures");
const pictures = embedded && JSON.parse(embedded.textContent);
const field = (name) => document.getElementById(name);
const grid = field("images");
const more = field("more");
const AT_ONCE = 48;
const layers = run.layers;

const said = (column, value) => {
  const number = column.whole ? value : Number(value.toPrecision(3));
  return column.share ? `${(100 * value).toFixed(1)} %` : `${number}${column.unit ? ` ${column.unit}` : ""}`;
};
const text = (i, column) => {
  const value = column && run.values[column.name][i];
  return value === null || value === undefined ? "" : `${column.title} ${said(column, value)}`;
};

function source(i, layer) {
  if (pictures) return pictures[i][layer];
  return `${run.folder}/${String(i).padStart(6, "0")}.${run.suffixes[layer]}`;
}

function element(kind, className, content) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (content) made.textContent = content;
  return made;
}

function tile(i, column) {
  const caption = element("span", "caption");
  const name = element("span", "name", run.ids[i]);
  if (run.seen[i] === 0) {
    const box = element("div", "failed");
    const why = run.errors[i];
    caption.append(name, element("span", "text", why ? `${why[0]}: ${why[1]}` : "has no density"));
    box.append(caption);
    return box;
  }
  const button = element("button", "tile");
  button.type = "button";
  button.dataset.name = run.ids[i];
  button.dataset.peaks = run.peaks[i].map((place) => place / 1000).join(" ");
  const facts = run.columns.map((one) => text(i, one)).filter(Boolean);
  button.dataset.text = facts.join("; ");
  const box = element("span", "stack");
  layers.slice(2 - run.seen[i]).forEach((layer, place) => {
    const picture = element("img", `layer ${layer}${place ? "" : " base"}`);
    picture.dataset.layer = layer;
    picture.alt = "";
    picture.loading = "lazy";
    picture.decoding = "async";
    [picture.width, picture.height] = run.sizes[i];
    picture.src = source(i, layer);
    box.append(picture);
  });
  const alone = run.seen[i] === 1 ? "The density alone: its image is not here" : "";
  caption.append(
    name,
    element("span", "text", [text(i, column), alone].filter(Boolean).join(". ")),
    element("span", "hidden", ": enlarge"),
  );
  button.append(box, caption);
  return button;
}

function item(i, column) {
  const made = document.createElement("li");
  made.append(tile(i, column));
  return made;
}

const column = (name) => run.columns.find((one) => one.name === name);

for (const list of document.querySelectorAll("[data-of]")) {
  const of = column(list.dataset.of);
  const chosen = [...list.children].map((one) => Number(one.dataset.index));
  list.replaceChildren(...chosen.map((i) => item(i, of)));
}

const names = new Intl.Collator(undefined, { numeric: true });
const lower = run.ids.map((name, i) => `${name} ${run.errors[i] ? run.errors[i][0] : ""}`.toLowerCase());
const near = new IntersectionObserver(
  (seen) => seen.at(-1).isIntersecting && drawn < found.length && draw(),
  { rootMargin: "1200px" },
);
let found = [];
let drawn = 0;

function matches(i, words, kind, value, from, to) {
  if (!words.every((word) => lower[i].includes(word))) return false;
  if (kind === "failed" && run.seen[i] !== 0) return false;
  if (kind === "scored" && run.seen[i] === 0) return false;
  if (kind === "missing" && run.seen[i] !== 1) return false;
  if (from === null && to === null) return true;
  return value !== null && (from === null || value >= from) && (to === null || value <= to);
}

function bound(name, of) {
  const given = field(name).value.trim();
  if (given === "" || !of || Number.isNaN(Number(given))) return null;
  return Number(given) / (of.share ? 100 : 1);
}

function search() {
  const of = column(field("by").value);
  const words = field("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const values = of && run.values[of.name];
  const kind = field("which").value;
  const bounds = [bound("from", of), bound("to", of)];
  for (const name of ["from", "to"]) field(name).disabled = !of;
  found = run.ids.map((_, i) => i)
    .filter((i) => matches(i, words, kind, values ? values[i] : null, ...bounds));
  const turn = field("order").value === "down" ? -1 : 1;
  const byName = (a, b) => names.compare(run.ids[a], run.ids[b]);
  found.sort((a, b) => {
    if (!values) return turn * byName(a, b);
    const [one, other] = [values[a], values[b]];
    if (one === null || other === null) return (one === null) - (other === null) || byName(a, b);
    return turn * (one - other) || byName(a, b);
  });
  field("found").textContent = `${found.length.toLocaleString("en")} of ${run.ids.length.toLocaleString("en")} images`;
  drawn = 0;
  grid.replaceChildren();
  draw();
}

function draw() {
  const of = column(field("by").value) ?? run.columns[0];
  const next = found.slice(drawn, drawn + AT_ONCE);
  drawn += next.length;
  grid.append(...next.map((i) => item(i, of)));
  more.hidden = drawn >= found.length;
  near.unobserve(more); // so that it is told again where the next ones are near, too
  near.observe(more);
}

let waiting = 0;
for (const name of ["search", "from", "to"]) {
  field(name).addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 120);
  });
}
for (const name of ["order", "which"]) field(name).addEventListener("change", search);
field("by").addEventListener("change", () => {
  for (const name of ["from", "to"]) field(name).value = "";
  field("order").value = field("by").value ? "down" : "up";
  search();
});
more.addEventListener("click", () => {
  const first = drawn;
  draw();
  grid.children[first]?.querySelector(".tile")?.focus();
});
grid.addEventListener("more", draw);
field("browse").hidden = false;
search();
