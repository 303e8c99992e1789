// The transfer tab. What computes is given: a server, or the networks in the page itself.
//
// engine.tiles, how many parts of a picture can be chosen; engine.square(file) -> address of its central square;
// engine.transfer({object, scene, mask, amount}) -> addresses of collage, I_mix, I_hat, I_hat_obj; engine.count, how many
// pictures are at hand (0: none), engine.picture(row) -> address of one, engine.like(row, tile, rank) -> row of another
// that looks alike there, rank 0 to 9.

export const byId = (id) => document.getElementById(id);

const QUADRANTS = ["q1 top left", "q2 top right", "q3 bottom left", "q4 bottom right"];
const RESULTS = ["collage", "I_mix", "I_hat", "I_hat_obj"];

export function say(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
}

// Run something that may fail, and say why it did.
export async function attempt(work) {
  try {
    await work();
    say("");
  } catch (error) {
    say(error.message);
  }
}

export function show(image, address) {
  image.src = address;
  image.hidden = false;
  image.parentElement.classList.remove("empty");
}

// A button over each part of the object's picture; the bottom left one is pressed.
function tileButtons(count) {
  const perSide = Math.sqrt(count);
  byId("digits").textContent = count === 4 ? "q1..q4" : `1..${count}`;
  byId("digits").title = count === 4 ? QUADRANTS.join(", ") : "row by row";
  const grid = document.querySelector(".tiles");
  grid.style.gridTemplate = `repeat(${perSide}, 1fr) / repeat(${perSide}, 1fr)`;
  for (let tile = 0; tile < count; tile++) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.tile = tile;
    button.setAttribute("aria-pressed", String(tile === count - perSide));
    button.setAttribute("aria-label", count === 4 ? QUADRANTS[tile]
      : `row ${Math.floor(tile / perSide) + 1}, column ${(tile % perSide) + 1}`);
    grid.append(button);
  }
  return [...grid.children];
}

const REMEMBERED = 12; // mixes in the history

export function transferTab(engine) {
  const chosen = { object: null, scene: null }; // addresses of the two pictures
  const rows = { object: null, scene: null }; // their numbers, if they are among those at hand
  const tiles = tileButtons(engine.tiles);
  let running = false;
  let again = false;

  const mask = () => tiles.map((button) => (button.getAttribute("aria-pressed") === "true" ? "1" : "0")).join("");

  // One request at a time; whatever changes meanwhile is asked for once, when the answer is there.
  async function update() {
    byId("mask").textContent = mask();
    byId("amount-shown").textContent = `${Math.round(100 * byId("amount").value)}%`;
    showLink();
    if (!chosen.object || !chosen.scene) return;
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      await attempt(async () => {
        const made = await engine.transfer({ ...chosen, mask: mask(), amount: Number(byId("amount").value) });
        for (const name of RESULTS) show(byId(name), made[name]);
        byId("save").href = made.I_mix;
        byId("save").hidden = false;
      });
    } while (again);
    running = false;
  }

  function place(name, address, row) {
    const slot = byId(name);
    chosen[name] = address;
    rows[name] = row;
    show(slot.querySelector("img"), address);
    slot.querySelector(".hint").hidden = true;
    slot.querySelector(".tiles")?.removeAttribute("hidden");
  }

  function set(name, address, row = null) {
    place(name, address, row);
    return update();
  }

  const files = { object: 0, scene: 0 }; // how many were taken: the newest counts, whichever is read first
  const take = (name, file) => file && attempt(async () => {
    const number = ++files[name];
    const square = await engine.square(file);
    if (number === files[name]) await set(name, square);
  });

  // Mixes of pictures at hand: {object, scene, mask, amount}, the pictures by their rows

  const draw = (count) => Math.floor(Math.random() * count);
  const only = (tile) => tiles.map((_, number) => (number === tile ? "1" : "0")).join("");
  const alike = async (scene, tile, rank) =>
    ({ object: await engine.like(scene, tile, rank), scene, mask: only(tile), amount: 1 });
  const example = () => alike(0, engine.tiles - Math.sqrt(engine.tiles), 0);

  async function mix(asked) {
    const [object, scene] = await Promise.all([engine.picture(asked.object), engine.picture(asked.scene)]);
    tiles.forEach((button, tile) => button.setAttribute("aria-pressed", String(asked.mask[tile] === "1")));
    byId("amount").value = asked.amount;
    place("object", object, asked.object);
    place("scene", scene, asked.scene);
    await update();
  }

  // The page's address reproduces the mix, unless a picture is the user's own.
  function showLink() {
    const known = rows.object !== null && rows.scene !== null;
    const asked = { ...rows, mask: mask(), amount: byId("amount").value };
    byId("link").hidden = !known;
    byId("link").href = known ? `#${new URLSearchParams(asked)}` : "#";
    if (known || location.hash) history.replaceState(null, "", known ? byId("link").href : location.pathname);
  }

  function linked() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const [object, scene] = ["object", "scene"].map((name) => Number(asked.get(name) ?? NaN));
    const amount = Number(asked.get("amount") ?? 1);
    const there = [object, scene].every((row) => Number.isInteger(row) && row >= 0 && row < engine.count);
    const possible = there && asked.get("mask")?.length === tiles.length && /^[01]+$/.test(asked.get("mask"));
    return possible && amount >= 0 && amount <= 1 ? { object, scene, mask: asked.get("mask"), amount } : null;
  }

  function remember(asked) {
    const button = document.createElement("button");
    const picture = document.createElement("img");
    button.type = "button";
    button.title = `${asked.mask} of picture ${asked.object} in picture ${asked.scene}`;
    [picture.src, picture.alt] = [byId("I_mix").src, button.title];
    button.append(picture);
    button.addEventListener("click", () => attempt(() => mix(asked)));
    byId("history").prepend(button);
    if (byId("history").children.length > REMEMBERED) byId("history").lastChild.remove();
  }

  async function surprise() {
    if (running) return;
    const asked = await alike(draw(engine.count), draw(engine.tiles), draw(10));
    await mix(asked);
    remember(asked);
  }

  for (const name of ["object", "scene"]) {
    const slot = byId(name);
    const picture = slot.querySelector(".picture");
    const input = slot.querySelector("input[type=file]");
    input.addEventListener("change", () => {
      take(name, input.files[0]);
      input.value = "";
    });
    picture.addEventListener("dragover", (event) => {
      event.preventDefault();
      picture.classList.add("over");
    });
    picture.addEventListener("dragleave", () => picture.classList.remove("over"));
    picture.addEventListener("drop", (event) => {
      event.preventDefault();
      picture.classList.remove("over");
      if (event.dataTransfer.files.length) take(name, event.dataTransfer.files[0]);
      else say("Drop a picture's file: a link or a text cannot be read");
    });
    if (engine.count) {
      const button = slot.querySelector(".random");
      button.hidden = false;
      button.addEventListener("click", () => attempt(async () => {
        const row = draw(engine.count);
        await set(name, await engine.picture(row), row);
      }));
    }
  }
  for (const button of tiles) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      update();
    });
  }
  byId("amount").addEventListener("input", update);
  byId("swap").addEventListener("click", () => {
    const { object, scene } = chosen;
    const [row, other] = [rows.object, rows.scene];
    if (object && scene) {
      place("object", scene, other);
      set("scene", object, row);
    }
  });
  byId("surprise").addEventListener("click", () => attempt(surprise));
  window.addEventListener("hashchange", () => attempt(async () => linked() && mix(linked())));
  // A picture dropped beside the slots must not replace the page.
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
  byId("surprises").hidden = engine.count < 2;
  if (engine.count > 1) attempt(async () => mix(linked() ?? await example()));
  else update();
  return set;
}
