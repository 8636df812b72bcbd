/** The page: fields, keys, progress, and the picture. The worker draws. */

import { got } from "./download.js";
import { encode } from "./png.js";

/** Bytes up to which a model comes by itself; a larger one comes when the first picture is asked for. */
const AT_ONCE = 100e6;
/** A side in pixels up to which a picture is shown with its pixels as squares. */
const SMALL = 128;
const LARGEST_SEED = 2n ** 64n - 1n;

const at = (id) => document.getElementById(id);
const form = at("wish");
/** The wish in the page's address, behind the #, which browsers keep to themselves. */
const asked = new URLSearchParams(location.hash.slice(1));
const mega = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

let model = null;
/** Whether someone asked for a picture before the model's description was here. */
let early = false;
let worker = null;
/** Promise of an opened worker; null before one is asked for, and after one failed. */
let opened = null;
let loaded = false;
let drawing = false;
let address = null;

function show(id, text) {
  at(id).textContent = text;
  at(id).hidden = !text;
}

function fail(sentence) {
  show("failure", sentence);
  busy(false);
  at("status").hidden = true;
}

function busy(now, share = null) {
  drawing = now;
  at("draw").setAttribute("aria-disabled", now); // not disabled, which would take the keyboard's focus from it
  at("stop").hidden = !now;
  at("progress").hidden = !now;
  if (share === null) at("progress").removeAttribute("value");
  else at("progress").value = share;
}

/** Start a worker and have it open the model; whoever draws waits for it. */
function open() {
  opened ??= new Promise((resolve, reject) => {
    worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    worker.addEventListener("message", ({ data }) => {
      const [[name, value]] = Object.entries(data);
      if (name === "ready") resolve(value);
      else if (name === "failed") reject(new Error(value));
      hear[name]?.(value);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      reject(new Error(`This browser cannot start it: ${event.message ?? "module workers are missing"}. Try a newer one.`));
    });
    worker.postMessage({ open: asked.get("device") });
  });
  opened.catch((error) => {
    end();
    fail(error.message);
  });
  return opened;
}

function end() {
  worker.terminate();
  [opened, loaded] = [null, false];
}

const hear = {
  loading({ here, all }) {
    show("status", `Fetching the model: ${mega(here)} of ${mega(all)}`);
    at("progress").hidden = false;
    at("progress").value = here / all;
  },
  refused(sentence) {
    show("note", `The graphics card cannot run this model, so the processor does: ${sentence}`);
  },
  ready({ device, threads, version }) {
    loaded = true;
    model.engine = `onnxruntime-web ${version} ${device}`;
    const processor = `the processor (WebAssembly, ${threads} thread${threads > 1 ? "s" : ""})`;
    const where = device === "webgpu" ? "the graphics card (WebGPU)" : processor;
    show("about", `Runs on ${where}, by onnxruntime-web ${version}. Bundle ${model.name}, ${model.facts.digest.slice(0, 12)}.`);
    at("processor").hidden = device !== "webgpu";
    if (drawing) return;
    show("status", "Ready.");
    at("progress").hidden = true;
  },
  step({ step, total }) {
    show("status", `Step ${step} of ${total}`);
    busy(true, step / total);
  },
  stopped() {
    show("status", "Stopped.");
    busy(false);
  },
  failed: fail,
  async picture({ pixels, unread, wish, seconds }) {
    const { width, height, seed, prompt } = wish;
    const png = await encode(pixels, width, height, facts(wish, unread));
    if (address) URL.revokeObjectURL(address);
    address = URL.createObjectURL(png);
    Object.assign(at("picture"), { src: address, alt: prompt || "A picture without a prompt", hidden: false });
    at("picture").classList.toggle("small", Math.max(width, height) <= SMALL);
    Object.assign(at("save"), { href: address, download: `${model.name}-${seed}.png`, hidden: false });
    show("note", unread && `The prompt is too long; the model does not read its end: “${unread}”`);
    show("status", `Drawn in ${seconds.toFixed(2)} s`);
    busy(false);
    at("status").scrollIntoView({ block: "nearest" }); // on a phone it is below the fields
  },
};

/** What made a picture, in the words that `t2iexport generate --from` reads. */
function facts(wish, unread) {
  const number = (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value));
  const told = { prompt: wish.prompt, seed: String(wish.seed), generator: "numpy" };
  if (wish.negativePrompt) told.negative_prompt = wish.negativePrompt;
  for (const scale of model.scales) {
    const usual = scale.name === "guidance_scale";
    told[usual ? scale.name : `input_${scale.name}`] = number(usual ? wish.guidanceScale : scale.default);
  }
  if (unread) told.prompt_not_read = unread;
  const size = { steps: String(wish.steps), height: String(wish.height), width: String(wish.width) };
  return { ...told, ...model.facts, engine: model.engine, ...size };
}

/** The fields as a wish; an error in a sentence for what is no number. */
function wished() {
  const seed = at("seed").value.trim();
  if (!/^[0-9]+$/.test(seed) || BigInt(seed) > LARGEST_SEED) {
    throw new Error(`“${seed}” is no seed. Use a whole number from 0 to ${LARGEST_SEED}.`);
  }
  const scale = at("guidance_scale").value.trim().replace(",", ".");
  const steered = model.scales.some(({ name }) => name === "guidance_scale");
  if (steered && (scale === "" || !Number.isFinite(Number(scale)))) {
    throw new Error(`“${scale}” is no guidance. Use a number such as 7.5; at 1 and below guidance is off.`);
  }
  return {
    prompt: at("prompt").value,
    negativePrompt: at("negative_prompt").value,
    seed: BigInt(seed),
    steps: Number(at("steps").value),
    guidanceScale: steered ? Number(scale) : null,
    height: Number(at("height").value),
    width: Number(at("width").value),
  };
}

async function draw() {
  early = !model;
  if (drawing || early) return;
  show("failure", "");
  let wish;
  try {
    wish = wished();
  } catch (error) {
    fail(error.message);
    return;
  }
  remember();
  busy(true);
  show("status", loaded ? "Drawing" : "Fetching the model");
  await open().then(
    () => drawing && (show("status", "Drawing"), busy(true), worker.postMessage({ draw: wish })),
    () => {},
  );
}

/** Stop: between two steps, or where no step is seen by ending the worker. */
function stop() {
  if (!drawing) return;
  if (loaded && !(at("steps").value in model.pipelines)) {
    worker.postMessage({ stop: true });
    return;
  }
  end();
  hear.stopped();
}

/** Put what is wished for into the page's address, which then draws it again elsewhere. */
function remember() {
  const fields = [...form.querySelectorAll("input, select, textarea")];
  const told = new URLSearchParams(fields.map((field) => [field.id, field.value]));
  if (asked.has("device")) told.set("device", asked.get("device"));
  history.replaceState(null, "", `#${told}`);
}

function options(id, values, chosen) {
  at(id).replaceChildren(...values.map((value) => new Option(value, value, value === chosen, value === chosen)));
}

/** Fit the fields to the model, and fill them from the page's address. */
function fit() {
  const { defaults, sizes, samplers, scales, branches } = model;
  document.title = `${model.name}: draw in the browser`;
  show("name", model.name);
  const steps = [...new Set(samplers.map((entry) => entry.steps))];
  options("steps", steps, defaults.steps);
  at("negative").hidden = branches < 2;
  const scale = scales.find(({ name }) => name === "guidance_scale");
  at("guidance").hidden = !scale;
  at("guidance_scale").value = scale?.default ?? "";
  const sides = { height: sizes.ranges[0], width: sizes.ranges[1] };
  for (const [side, [low, high, step]] of Object.entries(sides)) {
    options(side, Array.from({ length: Math.floor((high - low) / step) + 1 }, (_, index) => low + index * step), defaults[side]);
    at(side).parentElement.hidden = low === high;
  }
  for (const { id } of form.querySelectorAll("input, select, textarea")) if (asked.has(id)) at(id).value = asked.get(id);
  for (const { id } of form.querySelectorAll("select")) if (!at(id).value) at(id).value = defaults[id];
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  draw();
});
at("stop").addEventListener("click", () => {
  stop();
  at("draw").focus();
});
at("processor").addEventListener("click", () => {
  asked.set("device", "wasm");
  remember();
  location.reload();
});
at("dice").addEventListener("click", () => {
  at("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  const typed = event.target === at("prompt") && !event.shiftKey && !event.isComposing;
  if (event.key === "Enter" && (typed || event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    draw();
  }
});

try {
  model = await (await got("model.json")).json();
  fit();
  const size = Object.values(model.files).reduce((sum, file) => sum + file.size, 0);
  show("status", size > AT_ONCE ? `The model is ${mega(size)}, and comes when you draw.` : "Fetching the model");
  if (early) await draw();
  else if (size <= AT_ONCE) await open().catch(() => {});
} catch (error) {
  fail(error.message);
}
