/**
 * Draws pictures beside the page, which stays quick: opens the model, then takes one wish after the other.
 *
 * In:  {open: device}, {draw: wish}, {stop: true}
 * Out: {loading: {here, all}}, {refused: sentence}, {ready: {device, threads, version}}, {step: {step, total}}, {picture: {…}},
 *      {stopped: true}, {failed: sentence}
 */

import { Download, got } from "./download.js";
import { Pipeline, needed } from "./pipeline.js";

const LIBRARY = "./onnxruntime-web";
const BUILDS = { webgpu: "ort.webgpu.min.mjs", wasm: "ort.wasm.min.mjs" };

/** What comes back through it comes after the messages that wait; a timer would take 4 ms more. */
const turn = new MessageChannel();

let pipeline = null;
let stopping = false;

class Stopped extends Error {}

/** Open the model on the device that is asked for, or else on the graphics card, or where that cannot be on the processor. */
async function open(asked) {
  const model = await (await got("./model.json")).json();
  if (asked || !(await navigator.gpu?.requestAdapter())) return load(model, asked ?? "wasm");
  try {
    await load(model, "webgpu");
  } catch (error) {
    postMessage({ refused: error.message });
    await load(model, "wasm");
  }
}

async function load(model, device) {
  if (!(device in BUILDS)) throw new Error(`There is no device ${device}. Write device=webgpu or device=wasm in the address.`);
  const ort = await import(`${LIBRARY}/${BUILDS[device]}`);
  const threads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1; // the headers decide, and most hosts have none
  ort.env.wasm.wasmPaths = new URL(`${LIBRARY}/`, import.meta.url).href;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const all = needed(model).reduce((sum, name) => sum + model.files[name].size, 0);
  const download = new Download(model.files, (here) => postMessage({ loading: { here, all } }));
  const opened = new Pipeline(ort, model, download, [device]);
  await opened.open();
  pipeline = opened;
  postMessage({ ready: { device, threads, version: ort.env.versions.common } });
}

/** Let messages in between two steps, and stop where one of them says so. */
async function onStep(step, total) {
  postMessage({ step: { step, total } });
  await new Promise((resolve) => {
    turn.port1.onmessage = resolve;
    turn.port2.postMessage(null);
  });
  if (stopping) throw new Stopped();
}

async function draw(wish) {
  stopping = false;
  const start = performance.now();
  const { pixels, unread } = await pipeline.draw(wish, onStep);
  postMessage({ picture: { pixels, unread, wish, seconds: (performance.now() - start) / 1000 } }, [pixels.buffer]);
}

const doing = { open, draw, stop: async () => (stopping = true) };

addEventListener("message", async ({ data }) => {
  const [[name, value]] = Object.entries(data);
  try {
    await doing[name](value);
  } catch (error) {
    postMessage(error instanceof Stopped ? { stopped: true } : { failed: String(error.message ?? error) });
  }
});
