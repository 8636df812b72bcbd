/** Prompt → picture: tokenize, encode, sample, decode, as engines/pipeline.py does it. Names are the wiring. */

import { Noise } from "./noise.js";
import { play } from "./table.js";
import { TextTokenizer } from "./tokenizer.js";

const ARRAYS = { float32: Float32Array, int64: BigInt64Array };
const { fround } = Math;

export class Pipeline {
  #ort;
  #model;
  #download;
  #providers;
  #networks = new Map();
  #tables = new Map();
  #tokenizers;

  /**
   * @param {object} ort the library onnxruntime-web
   * @param {object} model what model.json says
   * @param {import("./download.js").Download} download
   * @param {string[]} providers of the library, the preferred first
   */
  constructor(ort, model, download, providers) {
    [this.#ort, this.#model, this.#download, this.#providers] = [ort, model, download, providers];
  }

  /** Read the tokenizers, and open all that a picture of the default size and number of steps needs. */
  async open() {
    const read = async (entry) => ({ entry, tokenizer: new TextTokenizer(await this.#download.json(entry.file), entry) });
    this.#tokenizers = await Promise.all(this.#model.tokenizers.map(read));
    for (const name of running(this.#model, this.#model.defaults.steps)) await this.#network(name);
    if (!this.fused(this.#model.defaults.steps)) await this.#ops(this.#model.defaults);
  }

  /** Whether so many steps are one graph, in which no step is seen. */
  fused(steps) {
    return steps in this.#model.pipelines;
  }

  /**
   * Draw one picture.
   *
   * @param {{prompt: string, negativePrompt: string, seed: bigint, steps: number, guidanceScale: number | null,
   *   height: number, width: number}} wish
   * @param {(step: number, total: number) => Promise<void>} onStep awaited after every step; what it throws ends the sampling
   * @returns {Promise<{pixels: Uint8Array, unread: string}>} height × width × RGB, and what of the prompt was not read
   */
  async draw(wish, onStep) {
    const { steps, height, width } = wish;
    const { factors, channels } = this.#model.sizes;
    const shape = [1, channels, height / factors[0], width / factors[1]];
    const noise = new Noise(wish.seed);
    const draw = () => noise.draw(shape.reduce((product, length) => product * length));
    const { fed, unread } = this.#tokenize(wish.prompt, wish.negativePrompt);
    const scales = this.#scales(wish.guidanceScale);
    const image = this.fused(steps)
      ? await this.#atOnce(steps, { ...fed, ...scales }, draw, shape)
      : await this.#stepByStep(wish, { fed, scales }, draw, shape, onStep);
    if (!image.every(Number.isFinite)) {
      throw new Error("The picture came out as NaN or infinity. If the model is in fp16, build it with precision fp32.");
    }
    return { pixels: Uint8Array.from(image, byte), unread };
  }

  async #atOnce(steps, fed, draw, shape) {
    const { name, draws } = this.#model.pipelines[steps];
    const all = new Float32Array(Array.from({ length: draws }, draw).flatMap((each) => Array.from(each)));
    const noise = this.#tensor("float32", all, [1, draws, ...shape.slice(1)]);
    return (await this.#run(name, { ...fed, noise })).image.data;
  }

  async #stepByStep(wish, { fed, scales }, draw, shape, onStep) {
    const { order, denoiser, shallow: outermost, decoder, output } = this.#model;
    const latentOf = (data) => this.#tensor("float32", data, shape);
    const known = { ...fed };
    for (const name of order) {
      const noise = this.#model.parts[name].inputs.includes("noise") ? { noise: latentOf(draw()) } : {};
      Object.assign(known, await this.#run(name, { ...known, ...noise }));
    }
    const ops = await this.#ops(wish);
    let deep = {};
    const denoise = async (latent, time, { guided, shallow }) => {
      const timestep = this.#tensor("float32", [time], [1]);
      const pool = { ...known, ...this.#share(scales, guided), timestep, latent: latentOf(latent) };
      const { [output]: answer, ...rest } = await (shallow ? this.#run(outermost, { ...pool, ...deep }) : this.#run(denoiser, pool));
      if (!shallow) deep = rest;
      return answer.data;
    };
    const latent = await play(ops, denoise, draw, onStep);
    return (await this.#run(decoder, { ...known, latent: latentOf(latent) })).image.data;
  }

  /** The sampler of that many steps: for that size, or for any. */
  async #ops({ steps, height, width }) {
    const fits = (entry) => entry.steps === steps && [height, null].includes(entry.height) && [width, null].includes(entry.width);
    const [found] = this.#model.samplers.filter(fits).sort((a, b) => (b.height ?? 0) - (a.height ?? 0));
    if (!found) throw new Error(`There is no sampler of ${steps} steps for ${width} × ${height} pixels. Choose another size.`);
    if (!this.#tables.has(found.file)) this.#tables.set(found.file, (await this.#download.json(found.file)).ops);
    return this.#tables.get(found.file);
  }

  /** What the tokenizers feed, by name; where guidance has two branches, the negative prompt comes first. */
  #tokenize(prompt, negativePrompt) {
    const texts = this.#model.branches === 2 ? [negativePrompt, prompt] : [prompt];
    const fed = {};
    let unread = "";
    for (const { entry, tokenizer } of this.#tokenizers) {
      const read = texts.map((text) => tokenizer.encode(text));
      const joined = (key, type) => this.#tensor(type, read.flatMap((each) => each[key]), [1, texts.length, entry.length]);
      fed[entry.feeds] = joined("ids", "int64");
      if (entry.mask) fed[entry.mask] = joined("mask", "int64");
      if (entry.weights) fed[entry.weights] = joined("weights", "float32");
      if (read.at(-1).unread.length > unread.length) unread = read.at(-1).unread;
    }
    return { fed, unread };
  }

  /** Every guidance scale by name; one that is switched off is at its `off`. */
  #scales(guidanceScale) {
    const value = ({ name, default: usual, off }) =>
      Math.max(fround((name === "guidance_scale" ? guidanceScale : null) ?? usual), fround(off ?? -Infinity));
    return Object.fromEntries(this.#model.scales.map((scale) => [scale.name, this.#tensor("float32", [value(scale)], [1])]));
  }

  /** The scales where a share of the guidance counts: at 0 each that can be off is so. */
  #share(scales, guided) {
    const taken = ({ name, off }) => fround(off + fround(fround(guided) * fround(scales[name].data[0] - off)));
    const offs = this.#model.scales.filter(({ off }) => (guided ?? null) !== null && (off ?? null) !== null);
    return { ...scales, ...Object.fromEntries(offs.map((scale) => [scale.name, this.#tensor("float32", [taken(scale)], [1])])) };
  }

  #tensor(type, numbers, shape) {
    const array = type === "int64" ? BigInt64Array.from(numbers, BigInt) : ARRAYS[type].from(numbers);
    return new this.#ort.Tensor(type, array, shape);
  }

  /** Run one network on what it takes of the pool; what nothing feeds, such as a LoRA, is zeros. */
  async #run(name, pool) {
    const network = await this.#network(name);
    const { inputs, resting } = this.#model.parts[name];
    const zeros = (shape) => this.#tensor("float32", new Float32Array(shape.reduce((product, length) => product * length)), shape);
    return network.run(Object.fromEntries(inputs.map((input) => [input, pool[input] ?? zeros(resting[input])])));
  }

  /** A network, opened when it is first needed; of whole pipelines one at a time, since each holds all weights. */
  async #network(name) {
    if (!this.#networks.has(name)) {
      for (const { name: other } of Object.values(this.#model.pipelines)) {
        await this.#networks.get(other)?.release();
        this.#networks.delete(other);
      }
      this.#networks.set(name, await this.#load(name));
    }
    return this.#networks.get(name);
  }

  async #load(name) {
    const [graph, ...weights] = this.#model.parts[name].files;
    const externalData = [];
    for (const file of weights) externalData.push({ path: file.split("/").at(-1), data: await this.#download.bytes(file) });
    const options = { executionProviders: this.#providers, externalData, logSeverityLevel: 3 };
    const bytes = await this.#download.bytes(graph);
    return this.#ort.InferenceSession.create(bytes, options).catch((error) => {
      throw new Error(`${name} could not be opened here: ${error.message}. Close other tabs, or try another browser.`);
    });
  }
}

/** Names of the networks that a picture of so many steps runs. */
function running({ pipelines, order, denoiser, shallow, decoder }, steps) {
  return steps in pipelines ? [pipelines[steps].name] : [...order, denoiser, ...(shallow ? [shallow] : []), decoder];
}

/** The files that a picture of the default number of steps needs. */
export function needed(model) {
  const networks = running(model, model.defaults.steps).flatMap((name) => model.parts[name].files);
  return [...networks, ...model.tokenizers.map(({ file }) => file)];
}

/** Of a number in [0, 1] a byte, rounded as numpy rounds: a half to the even neighbour. */
export function byte(number) {
  const scaled = fround(Math.min(Math.max(number, 0), 1) * 255);
  const whole = Math.floor(scaled);
  return scaled - whole === 0.5 ? whole + (whole % 2) : Math.round(scaled);
}
