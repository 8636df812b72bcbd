// The page: what a visitor wishes, the picture as it comes, and those that came before.

import * as api from "/page/api.js";
import { Mask } from "/page/mask.js";
import * as told from "/page/told.js";

const $ = (id) => document.getElementById(id);
const PREVIEWS = 12;
const mask = new Mask($("canvas"));
const history = [];
let models = [];
let running = null;
let shown = -1;

const model = () => models.find((one) => one.id === $("model").value) ?? models[0];

function fail(message) {
  $("failure").textContent = message;
  $("failure").hidden = !message;
}

function option(value, text = value) {
  return Object.assign(document.createElement("option"), { value, textContent: text });
}

/** Set up the form for what the chosen bundle takes. */
function arrange() {
  const about = model().t2iexport;
  document.title = `Draw with ${model().id}`;
  for (const side of ["width", "height"]) {
    const { min, max, step } = about[side];
    Object.assign($(side), { min, max, step, value: about.defaults[side], disabled: min === max });
  }
  $("n").max = about.limits.max_images;
  $("prompt").maxLength = $("negative_prompt").maxLength = about.limits.max_prompt;
  $("steps").replaceChildren(...about.steps.map((count) => option(count)));
  $("steps").value = about.defaults.steps;
  $("sampler").replaceChildren(...about.samplers.map((name, index) => option(index ? name : "", index ? `${name} (its own steps)` : name)));
  $("sampler_label").hidden = about.samplers.length < 2;
  $("negative_label").hidden = !about.negative_prompt;
  const scale = about.guidance.find((each) => each.name === "guidance_scale");
  $("guidance_label").hidden = !scale;
  $("guidance_scale").value = scale?.default ?? "";
  $("image_box").hidden = $("start_from").hidden = !about.image;
  $("inputs").replaceChildren(...Object.entries(about.inputs).map(([name, entry]) => input(name, entry)));
}

/** A field of an input that the bundle declares: a number, or a picture. */
function input(name, entry) {
  const label = Object.assign(document.createElement("label"), { textContent: name.replaceAll("_", " "), title: entry.about });
  const pictured = entry.kind === "image" || entry.kind === "mask";
  const field = Object.assign(document.createElement("input"), {
    type: pictured ? "file" : "number",
    required: entry.default === null,
  });
  field.dataset.input = name;
  if (pictured) {
    field.accept = "image/png,image/jpeg,image/webp";
    label.className = "wide";
  } else {
    for (const [from, to] of [["minimum", "min"], ["maximum", "max"]]) if (entry[from] !== null) field[to] = entry[from];
    Object.assign(field, { step: entry.kind === "integer" ? 1 : "any", value: entry.default ?? "" });
  }
  label.append(field);
  return label;
}

/** What the form says, as fields of a request; what is left out is the bundle's default. */
async function wish() {
  const fields = { model: model().id, prompt: $("prompt").value, size: `${$("width").value}x${$("height").value}` };
  if (!$("negative_label").hidden && $("negative_prompt").value) fields.negative_prompt = $("negative_prompt").value;
  const seed = $("seed").value.trim();
  fields.seed = seed ? Number(seed) : Math.floor(Math.random() * 2 ** 32);
  if (!/^\d*$/.test(seed) || !Number.isSafeInteger(fields.seed)) throw new Error(`seed ${seed} is no whole number below 2^53.`);
  if ($("sampler").value) fields.sampler = $("sampler").value;
  else fields.num_inference_steps = Number($("steps").value);
  if ($("guidance_scale").value) fields.guidance_scale = Number($("guidance_scale").value);
  if (Number($("n").value) > 1) fields.n = Number($("n").value);
  const files = mask.image ? await mask.files() : {};
  if (mask.image) fields.strength = Number($("strength").value);
  const inputs = {};
  for (const field of document.querySelectorAll("[data-input]")) {
    if (field.type === "number" && field.value) inputs[field.dataset.input] = Number(field.value);
    if (field.type === "file" && field.files[0]) {
      if (files.image) files[field.dataset.input] = field.files[0];
      else inputs[field.dataset.input] = await dataUrl(field.files[0]);
    }
  }
  if (Object.keys(inputs).length) fields.inputs = inputs;
  return [fields, files];
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

async function draw() {
  if (running || !models.length || !$("wish").reportValidity()) return;
  fail("");
  running = new AbortController();
  const start = performance.now();
  busy(true);
  try {
    const [fields, files] = await wish();
    const partial = $("sampler").value ? 0 : PREVIEWS;
    let done = 0;
    await api.draw({ ...fields, partial_images: partial }, files, (event) => {
      const source = `data:image/${event.output_format};base64,${event.b64_json}`;
      if (event.type.endsWith(".completed")) {
        done += 1;
        const { n, ...one } = fields;
        keep({ source, fields: { ...one, seed: event.seed }, files, info: event.info });
        $("status").textContent = `${done} of ${fields.n ?? 1} in ${((performance.now() - start) / 1000).toFixed(1)} s, seed ${event.seed}`;
      } else if (event.index === done) {
        image(source, "The picture as it comes");
        $("progress").value = event.step / (event.steps || 1);
        $("status").textContent = `step ${event.step} of ${event.steps}`;
      }
    }, running.signal);
  } catch (error) {
    if (error.name === "AbortError") $("status").textContent = "cancelled";
    else {
      fail(error.message);
      if (error.status === 401) $("key_dialog").showModal();
    }
    if (shown >= 0) show(shown, false);
  } finally {
    running = null;
    busy(false);
    $("about").hidden = shown < 0;
  }
}

function busy(now) {
  $("draw").disabled = now;
  $("cancel").hidden = $("progress").hidden = !now;
  $("frame").classList.toggle("drawing", now);
  if (now) {
    $("progress").removeAttribute("value"); // it waits
    $("status").textContent = "waiting";
    $("about").hidden = true;
    if (matchMedia("(max-width: 46rem)").matches) $("stage").scrollIntoView({ block: "start" });
  }
}

function image(source, text) {
  let found = $("frame").querySelector("img");
  if (!found) $("frame").replaceChildren((found = document.createElement("img")));
  Object.assign(found, { src: source, alt: text });
}

/** A word of a command; a flag is never broken over two lines. */
function word(text) {
  return Object.assign(document.createElement("span"), { textContent: text, className: text.startsWith("--") ? "flag" : "" });
}

function keep(picture) {
  history.push(picture);
  const index = history.length - 1;
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `picture ${index + 1}: ${picture.fields.prompt || "without words"}`);
  button.append(Object.assign(document.createElement("img"), { src: picture.source, alt: "" }));
  button.addEventListener("click", () => show(index));
  $("history").append(button);
  $("history").hidden = false;
  show(index, false);
}

function show(index, aloud = true) {
  shown = index;
  const { source, fields, files } = history[index];
  image(source, fields.prompt || "a picture without words");
  [...$("history").children].forEach((button, at) => button.setAttribute("aria-current", at === index));
  $("history").scrollLeft = $("history").children[index].offsetLeft - $("history").clientWidth / 2;
  Object.assign($("save"), { href: source, download: `${fields.model}-${fields.seed}.png` });
  $("command").replaceChildren(...told.command(fields, files).split(/(?<= )/).map(word));
  $("json").textContent = told.request(fields);
  $("about").hidden = Boolean(running);
  if (aloud) $("status").textContent = `picture ${index + 1} of ${history.length}, seed ${fields.seed}`;
}

function reuse({ fields }) {
  if (fields.model !== model().id) {
    $("model").value = fields.model;
    arrange();
  }
  [$("width").value, $("height").value] = fields.size.split("x");
  for (const name of ["prompt", "negative_prompt", "seed", "guidance_scale", "sampler"]) $(name).value = fields[name] ?? "";
  if (fields.num_inference_steps) $("steps").value = fields.num_inference_steps;
  $("n").value = 1;
  $("prompt").focus();
}

async function startFrom(file) {
  try {
    await mask.open(file);
  } catch {
    fail("this file is no picture that the browser can read. Choose a PNG, JPEG or WebP.");
    return;
  }
  fail("");
  $("editor").hidden = false;
  $("drop_text").textContent = file.name || "the picture";
  for (const side of ["width", "height"]) {
    const { min, max, step } = model().t2iexport[side];
    $(side).value = Math.min(max, Math.max(min, Math.round(mask.image[side] / step) * step));
  }
}

function remove() {
  mask.close();
  $("image").value = "";
  $("editor").hidden = true;
  $("drop_text").textContent = "Drop a picture here, or choose one";
}

async function load() {
  try {
    models = await api.models();
  } catch (error) {
    fail(error.message);
    if (error.status === 401) $("key_dialog").showModal();
    return;
  }
  fail("");
  $("model").replaceChildren(...models.map((one) => option(one.id)));
  $("model_label").hidden = models.length < 2;
  arrange();
}

$("wish").addEventListener("submit", (event) => (event.preventDefault(), draw()));
$("cancel").addEventListener("click", () => running?.abort());
$("model").addEventListener("change", arrange);
$("dice").addEventListener("click", () => ($("seed").value = ""));
$("reuse").addEventListener("click", () => reuse(history[shown]));
$("start_from").addEventListener("click", async () => startFrom(await (await fetch(history[shown].source)).blob()));
$("image").addEventListener("change", (event) => event.target.files[0] && startFrom(event.target.files[0]));
$("mask").addEventListener("change", (event) => event.target.files[0] && mask.openMask(event.target.files[0]));
$("brush").addEventListener("input", (event) => (mask.brush = Number(event.target.value)));
$("strength").addEventListener("input", (event) => ($("strength_told").value = event.target.value));
$("clear").addEventListener("click", () => mask.clear());
$("remove").addEventListener("click", remove);
$("erase").addEventListener("click", () => $("erase").setAttribute("aria-pressed", (mask.erasing = !mask.erasing)));
$("key_dialog").addEventListener("close", () => (api.useKey($("key").value), load()));
$("sampler").addEventListener("change", () => ($("steps").disabled = Boolean($("sampler").value)));
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  localStorage.setItem("t2iexport.theme", (document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark"));
});
for (const name of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) startFrom(event.dataTransfer.files[0]);
  });
}
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($(button.dataset.of).textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) draw();
  else if (event.key === "Escape") running?.abort();
  else if (["ArrowLeft", "ArrowRight"].includes(event.key) && history.length && !event.target.closest("input, textarea, select, canvas")) {
    show(Math.min(history.length - 1, Math.max(0, shown + (event.key === "ArrowRight" ? 1 : -1))));
  }
});
const theme = localStorage.getItem("t2iexport.theme");
if (theme) document.documentElement.dataset.theme = theme;
load();
