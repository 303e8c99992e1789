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
  async square(file) {
    if (file.size > MAX_UPLOAD) throw new Error(`${file.name} has more than 50 MB: choose a smaller one`);
    return (await ask("/square", { method: "POST", body: file })).square;
  },
  transfer: (asked) => ask("/transfer", {
    method: "POST", body: JSON.stringify(asked), headers: { "Content-Type": "application/json" },
  }),
  random: facts.images ? () => image(anyRow()) : undefined,
});

// Tabs

const tabs = [...document.querySelectorAll("[role=tab]")];

function open(name) {
  for (const tab of tabs) {
    const chosen = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", String(chosen));
    byId(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (name === "neighbours") attempt(showNeighbours);
  if (name === "run") attempt(showPictures);
}

for (const tab of tabs) tab.addEventListener("click", () => open(tab.getAttribute("aria-controls")));

// Neighbours

function element(kind, className, ...children) {
  const made = document.createElement(kind);
  made.className = className;
  made.append(...children);
  return made;
}

// A picture, or a quadrant of it, that leads to its own neighbours.
function cut(row, part, className, caption) {
  const picture = document.createElement("img");
  picture.src = `/images/${row}`;
  picture.alt = `picture ${row}`;
  picture.loading = "lazy";
  const button = element("button", className, element("span", `cut ${part}`, picture));
  button.type = "button";
  button.title = `picture ${row}`;
  button.addEventListener("click", () => go(row));
  return element("div", "", button, element("div", "distance", caption));
}

function go(row) {
  byId("row").value = row;
  return attempt(showNeighbours);
}

async function showNeighbours() {
  const row = Math.trunc(Number(byId("row").value));
  const found = await ask(`/neighbours/${row}`);
  const number = (value) => Math.round(value).toLocaleString("en");
  byId("row").max = facts.images - 1;
  byId("row-id").textContent = found.id;
  byId("neighbour-rows").replaceChildren(...found.rows.map((rows, q) => {
    const near = found.distances[q].map((distance) => distance <= found.tau);
    const title = `q${q + 1}: squared distances ${number(found.distances[q][0])} to ${number(found.distances[q].at(-1))}`;
    return element("div", "neighbour-row",
      element("h2", "", title, element("small", "", near.some(Boolean) ? `, orange up to tau ${number(found.tau)}` : "")),
      cut(row, "whole", "own", "picture"), cut(row, `q${q}`, "own", `q${q + 1}`),
      ...rows.map((other, rank) =>
        cut(other, `q${q}`, near[rank] ? "near" : "", number(found.distances[q][rank]))));
  }));
}

byId("pick").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(showNeighbours);
});
byId("random-row").addEventListener("click", () => go(anyRow()));
for (const name of ["object", "scene"]) {
  byId(`as-${name}`).addEventListener("click", () => attempt(async () => {
    await set(name, await image(Math.trunc(Number(byId("row").value))));
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
