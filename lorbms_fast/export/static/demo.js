// Object transfer in the page itself: ONNX Runtime runs encoder and decoder.

const facts = JSON.parse(document.getElementById("facts").textContent);
const { side, chunk, tiles } = facts;
const SIZE = 3 * side * side;

async function unpack(name) {
  const element = document.querySelector(`[data-asset="${name}"]`);
  const bytes = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
  element.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function load(name) {
  return import(URL.createObjectURL(new Blob([await unpack(name)], { type: "text/javascript" })));
}

const { attempt, byId, transferTab } = await load("transfer.js");

function canvas() {
  const made = document.createElement("canvas");
  made.width = made.height = side;
  paint(made);
  return made;
}

// What is transparent lies over white, as in a store.
function paint(made) {
  const context = made.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, made.width, made.height);
  return context;
}

// Pictures: uint8 RGBA row by row here, float32 planes in [-1, 1] for the networks.

function toNetwork(pixels) {
  const planes = new Float32Array(SIZE);
  for (let i = 0; i < side * side; i++)
    for (let c = 0; c < 3; c++) planes[c * side * side + i] = (pixels[4 * i + c] * 2) / 255 - 1;
  return planes;
}

function toAddress(planes) {
  const target = canvas();
  const context = target.getContext("2d");
  const image = context.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(((planes[c * side * side + i] + 1) * 255) / 2);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return target.toDataURL();
}

async function pixels(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const context = canvas().getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, side, side).data;
}

// Halving again and again averages over areas, which one large step would not.
async function square(file) {
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is not a picture that this browser reads: choose another one`);
  }
  let width = Math.min(image.width, image.height);
  let source = image;
  let [left, top] = [(image.width - width) / 2, (image.height - width) / 2];
  while (width > side) {
    const next = Math.max(side, width / 2);
    const smaller = new OffscreenCanvas(Math.ceil(next), Math.ceil(next));
    const context = paint(smaller);
    context.imageSmoothingQuality = "high";
    context.drawImage(source, left, top, width, width, 0, 0, smaller.width, smaller.height);
    [source, left, top, width] = [smaller, 0, 0, smaller.width];
  }
  const target = canvas();
  target.getContext("2d").drawImage(source, left, top, width, width, 0, 0, side, side);
  return target.toDataURL();
}

// Networks

async function networks() {
  const ort = await load("ort.mjs");
  ort.env.wasm.numThreads = 1; // more would need headers that no file has
  ort.env.wasm.wasmBinary = await unpack("ort.wasm");
  const open = async (name) => ort.InferenceSession.create(new Uint8Array(await unpack(name)));
  const [enc, dec] = [await open("enc"), await open("dec")];
  const run = async (session, values, dims) => {
    const output = await session.run({ [session.inputNames[0]]: new ort.Tensor("float32", values, dims) });
    return output[session.outputNames[0]].data;
  };
  return {
    encode: (planes) => run(enc, planes, [1, 3, side, side]),
    decode: (code) => run(dec, code, [1, facts.of_chunk.length, chunk]),
  };
}

// Of each picture: its pixels, code and reconstruction, computed once.
function memory({ encode, decode }) {
  const known = new Map();
  return async (address) => {
    if (!known.has(address)) {
      const image = await pixels(address);
      const code = await encode(toNetwork(image));
      if (known.size > 20) known.clear();
      known.set(address, { image, code, reconstruction: toAddress(await decode(code)) });
    }
    return known.get(address);
  };
}

function mixCodes(scene, object, mask, amount) {
  return scene.map((value, n) => {
    const taken = mask[facts.of_chunk[Math.floor(n / chunk)]] === "1";
    return taken ? (1 - amount) * value + amount * object[n] : value;
  });
}

function collage(scene, object, mask) {
  const perSide = Math.sqrt(tiles);
  const target = canvas();
  const context = target.getContext("2d");
  const pasted = context.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    const tile = Math.floor((Math.floor(i / side) * perSide) / side) * perSide + Math.floor(((i % side) * perSide) / side);
    const source = mask[tile] === "1" ? object : scene;
    for (let c = 0; c < 4; c++) pasted.data[4 * i + c] = source[4 * i + c];
  }
  context.putImageData(pasted, 0, 0);
  return target.toDataURL();
}

await attempt(async () => {
  const run = await networks();
  const recall = memory(run);
  transferTab({
    tiles,
    square,
    count: facts.pictures.length,
    picture: (row) => facts.pictures[row],
    like: (row, tile, rank) => (row + 1 + (rank % (facts.pictures.length - 1))) % facts.pictures.length,
    async transfer({ object, scene, mask, amount }) {
      const [of, into] = [await recall(object), await recall(scene)];
      return {
        collage: collage(into.image, of.image, mask),
        I_mix: toAddress(await run.decode(mixCodes(into.code, of.code, mask, amount))),
        I_hat: into.reconstruction,
        I_hat_obj: of.reconstruction,
      };
    },
  });
  document.title = `${facts.title} - lorbms-fast`;
  byId("run-facts").textContent = `run ${facts.title}`;
  document.body.dataset.ready = "yes";
});
