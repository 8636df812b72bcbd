// One point: its figures, its pictures beside the base's, how one comes to it, and what to copy.

function copyable(title, text) {
  const button = element("button", { type: "button", textContent: "copy" }), block = element("pre", {}, text);
  button.addEventListener("click", () => {
    const range = document.createRange();
    range.selectNodeContents(block);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    // A file that is opened from a disk may not have the clipboard; then the text is at least selected.
    const done = navigator.clipboard ? navigator.clipboard.writeText(text) : Promise.reject(new Error("no clipboard"));
    done.then(() => { button.textContent = "copied"; }, () => { button.textContent = document.execCommand("copy") ? "copied" : "press Ctrl+C"; });
  });
  return [element("h3", {}, title, button), block];
}

// The base's picture on the left of the slider, the point's on the right.
function pair(data, base, point, index) {
  const prompt = data.prompts[index], frame = element("div", { className: "pair" });
  const slider = element("input", { type: "range", min: 0, max: 100, value: 50 });
  slider.setAttribute("aria-label", `base or point: ${prompt}`);
  slider.addEventListener("input", () => frame.style.setProperty("--cut", `${slider.value}%`));
  frame.append(image(data, base.pictures[index], `base: ${prompt}`), image(data, point.pictures[index], prompt), slider);
  return element("figure", {}, frame, element("figcaption", {}, prompt));
}

function way(data, point) {
  const steps = point.path.slice(1).map((index, number) => {
    const here = data.points[index], before = data.points[point.path[number]];
    const changed = Object.keys(here.levels).filter((axis) => here.levels[axis] !== before.levels[axis]).map((axis) => `${axis}: ${here.levels[axis]}`);
    return element("li", {}, `${changed.join(", ")} → ${data.quantities[data.quality].label} ${here.texts[data.quality]}, ${here.texts.latency}`);
  });
  return steps.length ? [element("h3", {}, "From the base, step by step"), element("ol", { className: "path" }, ...steps)] : [];
}

function describe(data, point) {
  const place = document.getElementById("details"), base = data.points[0];
  const facts = Object.keys(data.quantities).filter((name) => point.values[name] !== null).flatMap((name) => {
    const spread = point.intervals[name], text = spread ? `${point.texts[name]}  (95%: ${spread.map((end) => told(end, name)).join(" to ")})` : point.texts[name];
    return [element("dt", {}, data.quantities[name].label), element("dd", {}, text)];
  });
  const pictures = point.pictures.map((_, index) => pair(data, base, point, index));
  place.replaceChildren(
    element("h2", {}, point.name),
    ...(point.failed ? [element("pre", {}, point.failure)] : []),
    element("dl", {}, ...facts),
    ...(pictures.length ? [element("p", { className: "quiet" }, "left of the line the base, right of it this point; drag"), element("div", { className: "pictures" }, ...pictures)] : []),
    ...way(data, point),
    ...copyable("Build it", point.command),
    ...(point.recipe ? copyable("Its recipe", point.recipe) : []),
  );
}
