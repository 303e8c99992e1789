import { attempt, byId, transferTab } from "/static/transfer.js";

const MAX_UPLOAD = 50 * 2 ** 20;

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The program that serves this page does not answer: is `lorbms-fast app` still running?");
  }
  const type = answer.headers.get("Content-Type") ?? "";
  if (answer.ok) return type.startsWith("application/json") ? answer.json() : answer.blob();
  throw new Error(type.startsWith("application/json") ? (await answer.json()).error : `Error ${answer.status}`);
}

async function post(where, file) {
  if (file.size > MAX_UPLOAD) throw new Error(`${file.name} has more than 50 MB: choose a smaller one`);
  return ask(where, { method: "POST", body: file });
}

const address = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

const facts = await ask("/run");
const image = async (row) => address(await ask(`/images/${row}`));
const anyRow = () => Math.floor(Math.random() * facts.images);

document.title = `${facts.name} - lorbms-fast`;
byId("run-facts").textContent = `run ${facts.name}, iteration ${facts.iteration.toLocaleString("en")}` +
  (facts.images ? `, ${facts.images.toLocaleString("en")} pictures` : ", whose store is gone");

const set = transferTab({
  tiles: facts.tiles,
  square: async (file) => (await post("/square", file)).square,
  transfer: (asked) => ask("/transfer", {
    method: "POST", body: JSON.stringify(asked), headers: { "Content-Type": "application/json" },
  }),
  count: facts.images,
  picture: image,
  like: facts.neighbours && facts.tiles === 4
    ? async (row, tile, rank) => (await ask(`/neighbours/${row}`)).rows[tile][rank]
    : (row, tile, rank) => (row + 1 + (rank % (facts.images - 1))) % facts.images,
});

// Tabs

const tabs = [...document.querySelectorAll("[role=tab]")];

function open(name) {
  for (const tab of tabs) {
    const chosen = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", String(chosen));
    byId(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (name === "neighbours" && !current) attempt(showNeighbours);
  if (name === "run") attempt(showPictures);
}

for (const tab of tabs) tab.addEventListener("click", () => open(tab.getAttribute("aria-controls")));

// Neighbours

let current = null; // address of the picture whose neighbours are shown

function element(kind, className, ...children) {
  const made = document.createElement(kind);
  made.className = className;
  made.append(...children);
  return made;
}

// A picture, or a quadrant of it.
function cut(source, part, name) {
  const picture = document.createElement("img");
  picture.src = source;
  picture.alt = name;
  picture.loading = "lazy";
  return element("span", `cut ${part}`, picture);
}

// A quadrant of a picture of the store that leads to its own neighbours.
function neighbour(row, q, className, distance) {
  const button = element("button", className, cut(`/images/${row}`, `q${q}`, `picture ${row}`));
  button.type = "button";
  button.title = `picture ${row}`;
  button.addEventListener("click", () => go(row));
  return element("div", "", button, element("div", "distance", distance));
}

const own = (source, part, caption) =>
  element("div", "", element("div", "own", cut(source, part, caption)), element("div", "distance", caption));

function go(row) {
  byId("row").value = row;
  return attempt(showNeighbours);
}

async function showNeighbours() {
  const row = Math.trunc(Number(byId("row").value));
  const found = await ask(`/neighbours/${row}`);
  byId("row").max = facts.images - 1;
  showRows(`/images/${row}`, found.id, found);
}

const showNeighboursOf = (file) => attempt(async () => {
  const found = await post("/neighbours", file);
  byId("row").value = "";
  showRows(found.square, file.name, found);
});

function showRows(source, name, { rows, distances, tau }) {
  current = source;
  byId("row-id").textContent = name;
  const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });
  byId("neighbour-rows").replaceChildren(...rows.map((others, q) => {
    const near = distances[q].map((distance) => distance <= tau);
    const title = `q${q + 1}: squared distances ${number(distances[q][0])} to ${number(distances[q].at(-1))}`;
    return element("div", "neighbour-row",
      element("h2", "", title, element("small", "", near.some(Boolean) ? `, orange up to tau ${number(tau)}` : "")),
      own(source, "whole", "picture"), own(source, `q${q}`, `q${q + 1}`),
      ...others.map((other, rank) => neighbour(other, q, near[rank] ? "near" : "", number(distances[q][rank]))));
  }));
}

byId("pick").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(showNeighbours);
});
byId("random-row").addEventListener("click", () => go(anyRow()));
byId("own").hidden = byId("search-own").hidden = !facts.searchable;
byId("search-none").hidden = facts.searchable || !facts.neighbours;
byId("own").querySelector("input").addEventListener("change", ({ target }) => {
  if (target.files.length) showNeighboursOf(target.files[0]);
  target.value = "";
});
byId("neighbours").addEventListener("drop", ({ dataTransfer }) => {
  if (facts.searchable && dataTransfer.files.length) showNeighboursOf(dataTransfer.files[0]);
});
for (const name of ["object", "scene"]) {
  byId(`as-${name}`).addEventListener("click", () => attempt(async () => {
    if (!current) throw new Error("There is no picture here to use yet: show one first");
    if (current.startsWith("data:")) await set(name, current);
    else await set(name, await address(await ask(current)), Number(current.split("/").at(-1)));
    open("transfer");
  }));
}

// Curves and sheets

async function showPictures() {
  const now = await ask("/run");
  const shown = [["curves", `/curves.png?${now.iteration}`],
    ...now.pictures.filter((name) => name !== "curves.png").map((name) => [name, `/pictures/${encodeURI(name)}`])];
  byId("pictures").replaceChildren(...shown.map(([name, source]) => {
    const picture = document.createElement("img");
    picture.src = source;
    picture.alt = name;
    picture.loading = "lazy";
    picture.addEventListener("error", () => picture.replaceWith("not drawn yet"));
    return element("figure", "", element("figcaption", "", name), picture);
  }));
}
