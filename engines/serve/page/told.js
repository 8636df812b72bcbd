// A picture in words: the command and the request that make it again.

const FLAGS = {
  negative_prompt: "--negative-prompt",
  seed: "--seed",
  num_inference_steps: "--steps",
  sampler: "--sampler",
  guidance_scale: "--guidance-scale",
  strength: "--strength",
};

/** As a shell takes a word. */
function quoted(word) {
  return /^[\w./:=,@%+-]+$/.test(word) ? word : `'${String(word).replaceAll("'", "'\\''")}'`;
}

/** `t2iexport generate` with these fields; pictures are named as the visitor must save them. */
export function command(fields, files) {
  const words = ["t2iexport", "generate", fields.model, fields.prompt, "-o", "out.png"];
  for (const [name, flag] of Object.entries(FLAGS)) if (fields[name] !== undefined && fields[name] !== "") words.push(flag, fields[name]);
  if (fields.size) {
    const [width, height] = fields.size.split("x");
    words.push("--width", width, "--height", height);
  }
  for (const [name, value] of Object.entries(fields.inputs ?? {})) words.push("--input", `${name}=${value}`);
  for (const name of ["image", "mask"]) if (files[name]) words.push(`--${name}`, `${name}.png`);
  for (const name of Object.keys(files)) if (name !== "image" && name !== "mask") words.push("--input", `${name}=${name}.png`);
  return words.map(quoted).join(" ");
}

/** The body that makes one picture again. */
export function request(fields) {
  return JSON.stringify(fields, null, 2);
}
