/** A compiled sampler, played as engines/samplers/table.py plays it: float32, the same sums in the same order. */

const { fround } = Math;

/** Sum of coefficient times latent, in a new array. */
function mix(row, history) {
  const mixed = new Float32Array(history[0].length);
  row.map(fround).forEach((coefficient, index) => {
    if (!coefficient) return;
    const latent = history[index];
    for (let i = 0; i < mixed.length; i++) mixed[i] += fround(latent[i] * coefficient);
  });
  return mixed;
}

/** The norm of a latent. */
function norm(latent) {
  return Math.sqrt(latent.reduce((sum, value) => sum + value * value, 0));
}

/**
 * Run a table that starts from noise.
 *
 * @param {object[]} ops of the table: `draw`, `eval`, `scaled` and, last, `emit`
 * @param {(latent: Float32Array, time: number, asks: {guided?: number, shallow?: boolean}) => Promise<Float32Array>} denoise the model,
 *   asked once per `eval`: for so much of its guidance, of its outermost layers alone
 * @param {() => Float32Array} draw the next noise
 * @param {(step: number, total: number) => Promise<void>} onStep awaited after every `eval`; what it throws ends the sampling
 * @returns {Promise<Float32Array>} the final latent
 */
export async function play(ops, denoise, draw, onStep = async () => {}) {
  const history = [];
  const total = ops.filter(({ op }) => op === "eval").length;
  let step = 0;
  for (const { op, row, t, over, under, power, ...asks } of ops) {
    if (op === "emit") return mix(row, history);
    if (op === "draw") {
      history.push(draw());
      continue;
    }
    if (op === "scaled") {
      const ratio = fround((norm(mix(over, history)) / norm(mix(under, history))) ** power);
      history.push(mix(row, history).map((value) => fround(value * ratio)));
      continue;
    }
    if (op !== "eval") throw new Error(`this sampler has an op ${op}, which starts from something else than noise.`);
    const output = await denoise(mix(row, history), t, asks);
    step += 1;
    if (!output.every(Number.isFinite)) {
      throw new Error(`Step ${step} of ${total} gave NaN or infinity. If the model is in fp16, build it with precision fp32.`);
    }
    history.push(output);
    await onStep(step, total);
  }
  throw new Error("this sampler's table has no end. Build the bundle again.");
}
