"use strict";
const $ = (id) => document.getElementById(id);
const card = JSON.parse($("card").textContent); // name, dataset, classes, size, channels, resize, background
const TOP = 5;
const CUBIC = -0.5; // Pillow's bicubic filter: https://pillow.readthedocs.io/en/stable/handbook/concepts.html#filters
let session, shown = 0;

async function unpack(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  $(id).remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load() {
  const source = new Blob([await unpack("module")], { type: "text/javascript" });
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(source) };
  ort.env.wasm.wasmBinary = (await unpack("wasm")).buffer;
  ort.env.wasm.numThreads = 1; // several need headers that a file has not
  session = await ort.InferenceSession.create(await unpack("model"));
}

// How much each of the input values counts for each output value: Pillow's filter, widened if the image shrinks.
function weights(from, to, low, high) {
  const scale = (high - low) / to, wide = Math.max(scale, 1), support = 2 * wide;
  const cubic = (x) => {
    x = Math.abs(x);
    if (x < 1) return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * CUBIC : 0;
  };
  return Array.from({ length: to }, (_, place) => {
    const centre = low + (place + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - support + 0.5)), last = Math.min(from, Math.floor(centre + support + 0.5));
    const row = Array.from({ length: last - first }, (_, i) => cubic((first + i - centre + 0.5) / wide));
    const sum = row.reduce((a, b) => a + b, 0);
    return { first, row: row.map((value) => value / sum) };
  });
}

// Resize RGBA pixels inside a box to RGB, as Pillow does: rows, then columns, rounded to 8 bits after each.
function resize(pixels, width, height, toWidth, toHeight, [left, upper, right, lower]) {
  const half = new Uint8ClampedArray(toWidth * height * 3), whole = new Uint8ClampedArray(toWidth * toHeight * 3);
  weights(width, toWidth, left, right).forEach(({ first, row }, x) => {
    for (let y = 0; y < height; y++)
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let i = 0; i < row.length; i++) sum += row[i] * pixels[4 * (y * width + first + i) + c];
        half[3 * (y * toWidth + x) + c] = sum; // clamped and rounded
      }
  });
  weights(height, toHeight, upper, lower).forEach(({ first, row }, y) => {
    for (let x = 0; x < toWidth; x++)
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let i = 0; i < row.length; i++) sum += row[i] * half[3 * ((first + i) * toWidth + x) + c];
        whole[3 * (y * toWidth + x) + c] = sum;
      }
  });
  return whole;
}

// Python rounds halves to the even number.
const round = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

// Make the pixels of an image square as in training: RGB, size x size.
function square({ data, width, height }) {
  const { size } = card, long = Math.max(width, height), short = Math.min(width, height);
  if (card.resize === "crop") {
    const [left, upper] = [(width - short) / 2, (height - short) / 2];
    return resize(data, width, height, size, size, [left, upper, left + short, upper + short]);
  }
  if (card.resize !== "pad" || width === height) return resize(data, width, height, size, size, [0, 0, width, height]);
  const [inWidth, inHeight] = [width, height].map((side) => round((side / long) * size) || 1);
  const [x0, y0] = [inWidth, inHeight].map((side) => round((size - side) / 2));
  const inner = resize(data, width, height, inWidth, inHeight, [0, 0, width, height]);
  const padded = new Uint8ClampedArray(size * size * 3).map((_, i) => card.background[i % 3]);
  for (let y = 0; y < inHeight; y++) padded.set(inner.subarray(3 * y * inWidth, 3 * (y + 1) * inWidth), 3 * ((y + y0) * size + x0));
  return padded;
}

// The model's input, uint8 (1, C, size, size); grey as Pillow converts it.
function input(rgb) {
  const { size, channels } = card, area = size * size, planes = new Uint8Array(channels * area);
  for (let i = 0; i < area; i++) {
    const [r, g, b] = rgb.subarray(3 * i, 3 * i + 3);
    if (channels === 1) planes[i] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    else [r, g, b].forEach((value, c) => (planes[c * area + i] = value));
  }
  return planes;
}

function show(rgb, probabilities) {
  const { size, classes } = card, seen = $("seen"), planes = input(rgb), picture = new ImageData(size, size);
  for (let i = 0; i < size * size; i++)
    for (let c = 0; c < 4; c++) picture.data[4 * i + c] = c === 3 ? 255 : planes[(card.channels === 1 ? 0 : c) * size * size + i];
  [seen.width, seen.height] = [size, size];
  seen.getContext("2d").putImageData(picture, 0, 0);
  $("input").hidden = false;
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, TOP);
  $("top").replaceChildren(
    ...order.map((index) => {
      const [item, line, name, share, bar, full] = ["li", "span", "b", "span", "div", "i"].map((tag) => document.createElement(tag));
      name.textContent = classes[index];
      share.textContent = `${(100 * probabilities[index]).toFixed(1)} %`;
      item.dataset.probability = probabilities[index];
      full.style.width = `${100 * probabilities[index]}%`;
      bar.className = "bar";
      bar.append(full);
      line.append(name, share);
      item.append(line, bar);
      return item;
    }),
  );
}

function say(text, bad = false) {
  $("message").textContent = text;
  $("message").className = bad ? "bad" : "";
}

// Classify what a canvas shows.
async function classify(canvas) {
  const mine = ++shown, rgb = square(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height));
  const images = new ort.Tensor("uint8", input(rgb), [1, card.channels, card.size, card.size]);
  const logits = (await session.run({ images })).logits.data, top = Math.max(...logits);
  if (mine !== shown) return; // a newer image
  const powers = [...logits].map((value) => Math.exp(value - top)), sum = powers.reduce((a, b) => a + b, 0);
  say("");
  show(rgb, powers.map((value) => value / sum));
}

// Draw a source of images on the canvas in its own size, on the background of the training, and classify it.
async function take(source, width, height) {
  const canvas = $("shown");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = `rgb(${card.background.join(" ")})`;
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  display("shown");
  await classify(canvas);
}

// Do something once the model is loaded, and tell what goes wrong.
const attempt = (act) => ready.then(act).catch((error) => say(`The image cannot be classified: ${error.message}`, true));

async function open(file) {
  if (!file) return;
  stop();
  let image;
  try {
    image = await createImageBitmap(file, { colorSpaceConversion: "none" }); // upright by its EXIF orientation
  } catch {
    return say(`Your browser cannot read ${file.name || "this"} as an image; save it as PNG or JPEG.`, true);
  }
  await attempt(() => take(image, image.width, image.height));
  image.close();
}

function display(id) {
  for (const each of ["hint", "shown", "board", "live"]) $(each).hidden = each !== id;
  $("draw").setAttribute("aria-pressed", id === "board");
  $("camera").setAttribute("aria-pressed", id === "live");
  $("clear").hidden = id !== "board";
  $("take").hidden = id !== "live";
}

function stop() {
  for (const track of $("live").srcObject?.getTracks() ?? []) track.stop();
  $("live").srcObject = null;
}

// The board: black on white, or white on black where the training images of digits and clothes are grey.
function wipe() {
  shown++; // the classes of what is wiped come too late
  const context = $("board").getContext("2d", { willReadFrequently: true });
  context.fillStyle = card.channels === 1 ? "#000" : "#fff";
  context.fillRect(0, 0, $("board").width, $("board").height);
  Object.assign(context, { strokeStyle: card.channels === 1 ? "#fff" : "#000", lineWidth: 24, lineCap: "round", lineJoin: "round" });
  $("top").replaceChildren();
  $("input").hidden = true;
  say("Draw with the mouse or a finger.");
}

function stroke(event) {
  const board = $("board"), context = board.getContext("2d"), area = board.getBoundingClientRect();
  const [x, y] = [((event.clientX - area.left) / area.width) * board.width, ((event.clientY - area.top) / area.height) * board.height];
  if (event.type === "pointerdown") {
    board.setPointerCapture(event.pointerId);
    context.beginPath();
    context.moveTo(x, y);
  } else if (!event.buttons) return;
  context.lineTo(x, y);
  context.stroke();
}

$("board").addEventListener("pointerdown", stroke);
$("board").addEventListener("pointermove", stroke);
$("board").addEventListener("pointerup", () => attempt(() => classify($("board"))));
$("draw").onclick = () => (stop(), display("board"), wipe());
$("clear").onclick = wipe;
$("choose").onclick = () => $("file").click();
$("file").onchange = () => open($("file").files[0]).then(() => ($("file").value = "")); // the same file can be chosen again
$("camera").onclick = async () => {
  stop();
  try {
    $("live").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    await $("live").play();
    display("live");
    say("Take a picture to classify it.");
  } catch {
    say("There is no camera, or the browser may not use it here; choose a file.", true);
  }
};
$("take").onclick = () => attempt(() => take($("live"), $("live").videoWidth, $("live").videoHeight)).then(stop);
addEventListener("paste", (event) => open([...event.clipboardData.files][0]));
for (const name of ["dragenter", "dragover", "dragleave", "drop"])
  addEventListener(name, (event) => {
    event.preventDefault();
    $("place").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") open(event.dataTransfer.files[0]);
  });

$("name").textContent = card.name;
$("about").textContent = `${card.dataset ? `Trained on ${card.dataset}: ` : ""}${card.classes.length} classes, images of ${card.size}x${card.size} pixels${card.channels === 1 ? ", grey" : ""}.`;
$("size").textContent = `The image as the model sees it, ${card.size}x${card.size} pixels:`;
$("count").textContent = `The ${card.classes.length} classes`;
$("classes").textContent = card.classes.join(", ");
const ready = load();
ready.then(
  () => say("Choose an image."),
  (error) => say(`The model cannot run in this browser: ${error.message}`, true),
);
