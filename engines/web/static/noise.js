/**
 * Standard normal noise as numpy draws it: `Generator(Philox(key=seed)).standard_normal(shape, float32)`.
 *
 * Philox 4x64-10 (Salmon et al. 2011) gives words, a ziggurat of 256 layers (Marsaglia and Tsang 2000; numpy's
 * distributions.c) makes numbers of them. Every number is numpy's to the last bit, but for one in 4,000: beyond the last layer
 * numpy asks the C library for a logarithm in float32, and libraries differ there in the last bit.
 */

const WORD = (1n << 64n) - 1n;
const HALF = (1n << 32n) - 1n;
const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const BUMPS = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];

class Philox {
  #key;
  #counter = 0n;
  #words = [];

  /** @param {bigint} key of the stream, from 0 to 2^64 - 1 */
  constructor(key) {
    this.#key = key;
  }

  /** The next 32 bits: of each word of 64 the lower half, then the upper one. */
  next() {
    if (!this.#words.length) {
      this.#words = this.#block().flatMap((word) => [Number(word & HALF), Number(word >> 32n)]).reverse();
    }
    return this.#words.pop();
  }

  #block() {
    this.#counter += 1n;
    let [a, b, c, d] = [0n, 64n, 128n, 192n].map((bits) => (this.#counter >> bits) & WORD);
    let [low, high] = [this.#key, 0n];
    for (let round = 0; round < 10; round++) {
      const [first, second] = [MULTIPLIERS[0] * a, MULTIPLIERS[1] * c];
      [a, b, c, d] = [(second >> 64n) ^ b ^ low, second & WORD, (first >> 64n) ^ d ^ high, first & WORD];
      [low, high] = [(low + BUMPS[0]) & WORD, (high + BUMPS[1]) & WORD];
    }
    return [a, b, c, d];
  }
}

/** Where the last layer ends, and the area of every layer. */
const EDGE = 3.6541528853610088;
const AREA = 0.004928673233974655;
const LAYERS = 256;
const STEPS = 2 ** 23;

/** The ziggurat's layers in float32, as numpy has them: where to stop, how wide a step is, and the density. */
export function ziggurat() {
  const density = (x) => Math.exp((-x * x) / 2);
  const edges = new Float64Array(LAYERS + 1);
  [edges[LAYERS], edges[LAYERS - 1]] = [AREA / density(EDGE), EDGE];
  for (let layer = LAYERS - 2; layer > 0; layer--) {
    edges[layer] = Math.sqrt(-2 * Math.log(AREA / edges[layer + 1] + density(edges[layer + 1])));
  }
  const stops = Uint32Array.from({ length: LAYERS }, (_, layer) => Math.round((edges[layer - 1] / edges[layer]) * STEPS));
  stops[0] = Math.round((EDGE / edges[LAYERS]) * STEPS); // the lowest layer is wider than it is long: a tail hangs on it
  stops[1] = 0;
  const widths = Float32Array.from({ length: LAYERS }, (_, layer) => edges[layer || LAYERS] / STEPS);
  return { stops, widths, heights: Float32Array.from({ length: LAYERS }, (_, layer) => density(edges[layer])) };
}

const { stops, widths, heights } = ziggurat();
const { fround } = Math;

/** One stream of standard normal numbers, of one picture's seed. */
export class Noise {
  #source;

  /** @param {bigint} seed from 0 to 2^64 - 1 */
  constructor(seed) {
    this.#source = new Philox(seed);
  }

  /** The next draw: so many numbers. */
  draw(count) {
    return Float32Array.from({ length: count }, () => this.#normal());
  }

  #uniform() {
    return (this.#source.next() >>> 8) / 2 ** 24;
  }

  #normal() {
    for (;;) {
      const word = this.#source.next();
      const [layer, sign, steps] = [word & 255, word & 256 ? -1 : 1, word >>> 9];
      const x = sign * fround(steps * widths[layer]);
      if (steps < stops[layer]) return x;
      if (layer === 0) return steps & 256 ? -this.#tail() : this.#tail();
      const height = fround(fround(heights[layer - 1] - heights[layer]) * this.#uniform());
      if (fround(height + heights[layer]) < Math.exp(-0.5 * x * x)) return x;
    }
  }

  /** A number beyond the last layer. */
  #tail() {
    for (;;) {
      const across = fround(fround(-1 / EDGE) * fround(Math.log1p(-this.#uniform())));
      const up = -fround(Math.log1p(-this.#uniform()));
      if (fround(up + up) > fround(across * across)) return fround(fround(EDGE) + across);
    }
  }
}
