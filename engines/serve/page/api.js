// What the page asks of its server: the models, and pictures as a stream of events.

const KEY = "t2iexport.key";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

function headers(more = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}`, ...more } : more;
}

async function refused(response) {
  let message = `the server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // Some proxy between here and the server answered, in words of its own.
  }
  return new Refused(response.status, message);
}

export async function models() {
  const response = await fetch("/v1/models", { headers: headers() });
  if (!response.ok) throw await refused(response);
  return (await response.json()).data;
}

/** Draw; every event of the stream is given to `onEvent`. Files make it an edit. */
export async function draw(fields, files, onEvent, signal) {
  const asked = { ...fields, stream: true };
  const edit = Boolean(files.image);
  let body = JSON.stringify(asked);
  if (edit) {
    body = new FormData();
    for (const [name, value] of Object.entries(asked)) body.append(name, typeof value === "object" ? JSON.stringify(value) : value);
    for (const [name, file] of Object.entries(files)) body.append(name, file, `${name}.png`);
  }
  const response = await fetch(edit ? "/v1/images/edits" : "/v1/images/generations", {
    method: "POST",
    headers: headers(edit ? {} : { "content-type": "application/json" }),
    body,
    signal,
  });
  if (!response.ok) throw await refused(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text += part.value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const told = JSON.parse(event.slice(event.indexOf("data: ") + 6));
      if (told.type === "error") throw new Refused(500, told.error.message);
      onEvent(told);
    }
  }
  if (text) throw new Refused(500, "the answer broke off. Is the server still there?");
}
