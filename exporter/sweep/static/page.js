// What is shown follows from the state: which levels, which columns, which point.

const data = JSON.parse(document.getElementById("data").textContent);
data.points.forEach((point, index) => { point.index = index; });
const axes = Object.keys(data.axes), quantities = Object.keys(data.quantities);
const measured = quantities.filter((name) => data.points.some((point) => point.values[name] !== null));
const state = {
  hidden: new Set(), up: data.quality, across: "latency", colour: axes[0], logarithmic: true,
  columns: [data.quality, ...measured.filter((name) => name !== data.quality)],
  sort: data.quality, descending: data.quantities[data.quality].higher_is_better, selected: data.points[data.chosen.at(-1) ?? 0],
};
const key = (axis, level) => `${axis}\n${level}`;

function choose(point) {
  state.selected = point;
  show();
}

function sort(column) {
  state.descending = state.sort === column ? !state.descending : column !== "name" && data.quantities[column].higher_is_better;
  state.sort = column;
  show();
}

function show() {
  const shown = data.points.filter((point) => axes.every((axis) => !state.hidden.has(key(axis, point.levels[axis]))));
  document.getElementById("count").textContent = `${shown.length} of ${data.points.length} points`;
  draw(data, state, shown, choose);
  listPoints(data, state, shown, choose, sort);
  sheet(data, sorted(shown, state.sort, state.descending));
  describe(data, state.selected);
}

function filters() {
  const groups = axes.map((axis) => {
    const chips = data.axes[axis].map((level) => {
      const box = element("input", { type: "checkbox", checked: !state.hidden.has(key(axis, level)) });
      box.addEventListener("change", () => {
        if (box.checked) state.hidden.delete(key(axis, level)); else state.hidden.add(key(axis, level));
        show();
      });
      return element("label", { className: "chip" }, box, level);
    });
    return element("fieldset", {}, element("legend", {}, axis), ...chips);
  });
  document.getElementById("filters").replaceChildren(...groups);
}

function select(id, names, labels) {
  const box = document.getElementById(id);
  box.replaceChildren(...names.map((name) => element("option", { value: name, textContent: labels(name), selected: state[id] === name })));
  box.addEventListener("change", () => { state[id] = box.value; show(); });
}

document.getElementById("machine").textContent = `${data.machine}; ${data.rounds} interleaved rounds, ${data.prompts.length} prompts; base: ${data.base}`;
document.getElementById("answers").replaceChildren(element("h2", {}, "Which to take"), ...data.sentences.map((text) => element("p", {}, text)));
const environment = Object.entries(data.environment).flatMap(([name, value]) => [
  element("dt", {}, name),
  element("dd", {}, typeof value === "object" ? Object.entries(value).map((pair) => pair.join(" ")).join(", ") || "–" : String(value) || "–"),
]);
document.getElementById("environment").replaceChildren(...environment);
const label = (name) => data.quantities[name].label;
select("up", measured, label);
select("across", measured, label);
select("colour", axes, (axis) => axis);
const logarithmic = document.getElementById("logarithmic");
logarithmic.checked = state.logarithmic;
logarithmic.addEventListener("change", () => { state.logarithmic = logarithmic.checked; show(); });
document.getElementById("everything").addEventListener("click", () => { state.hidden.clear(); filters(); show(); });
filters();
listFailures(data);
listEffects(data);
show();
