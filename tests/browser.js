// The parts of a browser that the script of a page uses; `answers` are those of the model, `streams` those of cameras.
const elements = {}, streams = [], answers = [];
const pixels = (x, y, width, height) => ({ data: new Uint8ClampedArray(4 * width * height), width, height });
const context = new Proxy({ getImageData: pixels }, { get: (own, name) => own[name] ?? (() => {}), set: () => true });
const element = () => ({
  textContent: "", width: 8, height: 8, style: {}, dataset: {}, listeners: {},
  append() {}, remove() {}, setAttribute() {}, play() {}, getContext: () => context,
  addEventListener(type, act) { this.listeners[type] = act; },
  replaceChildren(...all) { this.children = all; },
});
const camera = () => {
  const stream = { live: true };
  streams.push(stream);
  return { getTracks: () => [{ stop: () => (stream.live = false) }] };
};
globalThis.document = { getElementById: (id) => (elements[id] ??= element()), createElement: element };
globalThis.addEventListener = () => {};
globalThis.ImageData = function (width, height) { Object.assign(this, pixels(0, 0, width, height)); };
const navigator = { mediaDevices: { getUserMedia: async () => camera() } };
const session = { run: () => answers.shift()() };
globalThis.ort = { env: { wasm: {} }, Tensor: function () {}, InferenceSession: { create: async () => session } };
const settled = () => new Promise((resolve) => setTimeout(resolve, 50));
