// The transfer tab. What computes is given: a server, or the networks in the page itself.
//
// engine.tiles, how many parts of a picture can be chosen; engine.square(file) -> address of its central square;
// engine.transfer({object, scene, mask, amount}) -> addresses of collage, I_mix, I_hat, I_hat_obj; engine.random(), if
// there are pictures to draw from -> address.

export const byId = (id) => document.getElementById(id);

const QUADRANTS = ["q1, top left", "q2, top right", "q3, bottom left", "q4, bottom right"];
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

export function transferTab(engine) {
  const chosen = { object: null, scene: null };
  const tiles = tileButtons(engine.tiles);
  let running = false;
  let again = false;

  const mask = () => tiles.map((button) => (button.getAttribute("aria-pressed") === "true" ? "1" : "0")).join("");

  // One request at a time; whatever changes meanwhile is asked for once, when the answer is there.
  async function update() {
    byId("mask").textContent = mask();
    byId("amount-shown").textContent = `${Math.round(100 * byId("amount").value)}%`;
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

  function set(name, address) {
    const slot = byId(name);
    chosen[name] = address;
    show(slot.querySelector("img"), address);
    slot.querySelector(".hint").hidden = true;
    slot.querySelector(".tiles")?.removeAttribute("hidden");
    return update();
  }

  const take = (name, file) => file && attempt(async () => set(name, await engine.square(file)));

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
    if (engine.random) {
      const button = slot.querySelector(".random");
      button.hidden = false;
      button.addEventListener("click", () => attempt(async () => set(name, await engine.random())));
    }
  }
  for (const button of tiles) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      update();
    });
  }
  byId("amount").addEventListener("input", update);
  update();
  byId("swap").addEventListener("click", () => {
    const { object, scene } = chosen;
    if (object && scene) {
      set("object", scene);
      set("scene", object);
    }
  });
  // A picture dropped beside the slots must not replace the page.
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
  return set;
}
