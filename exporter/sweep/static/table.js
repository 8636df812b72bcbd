// The tables: points, their pictures, effects. What they show is text, never markup.

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function sorted(points, column, descending) {
  const key = column === "name" ? (point) => point.name : (point) => point.values[column];
  const order = [...points].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return (typeof a === "string" ? a.localeCompare(b) : a - b) * (descending ? -1 : 1);
  });
  return order;
}

function listPoints(data, state, points, choose, sort) {
  const columns = ["name", ...state.columns], table = document.getElementById("points");
  const labels = { name: "point", ...Object.fromEntries(state.columns.map((name) => [name, data.quantities[name].label])) };
  const heads = columns.map((name) => {
    const arrow = state.sort === name ? (state.descending ? " ▼" : " ▲") : "";
    const button = element("button", { type: "button", textContent: labels[name] + arrow });
    button.addEventListener("click", () => sort(name));
    const head = element("th", { scope: "col" }, button);
    head.setAttribute("aria-sort", state.sort !== name ? "none" : state.descending ? "descending" : "ascending");
    return head;
  });
  table.tHead.replaceChildren(element("tr", {}, ...heads));
  const rows = sorted(points, state.sort, state.descending).map((point) => {
    const name = element("td", {}, point.front ? "◆ " : "", point.name);
    if (point.front) name.title = "no other point beats it in quality, latency and memory";
    const cells = state.columns.map((column) => {
      const spread = point.intervals[column];
      return element("td", { className: "number", title: spread ? `95%: ${spread.map((end) => told(end, column)).join(" to ")}` : "" }, point.failed ? "–" : point.texts[column]);
    });
    const row = element("tr", { tabIndex: 0, className: point === state.selected ? "selected" : "" }, name, ...cells);
    row.dataset.point = point.index;
    row.addEventListener("click", () => choose(point));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(point); });
    return row;
  });
  table.tBodies[0].replaceChildren(...rows);
}

function listFailures(data) {
  const failed = data.points.filter((point) => point.failed);
  if (!failed.length) return;
  const reasons = Map.groupBy(failed, (point) => point.failure);
  const items = [...reasons].map(([reason, points]) => element("details", {},
    element("summary", {}, `${points.length} × ${reason.split("\n")[0]}`), element("pre", {}, reason), ...points.map((point) => element("div", {}, point.name))));
  document.getElementById("failures").replaceChildren(element("h3", {}, `${failed.length} failed`), ...items);
}

function image(data, name, prompt) {
  const made = element("img", { src: data.images[name], alt: prompt });
  made.addEventListener("load", () => { if (made.naturalWidth > 128) { made.classList.add("large"); made.parentElement?.classList.add("large"); } });
  return made;
}

function sheet(data, points) {
  const drawn = points.filter((point) => point.pictures.length);
  const prompts = data.prompts.slice(0, data.shown);
  const head = element("tr", {}, element("th"), ...prompts.map((prompt) => element("th", { scope: "col" }, prompt)));
  const rows = drawn.map((point) => element("tr", {}, element("td", {}, point.name), ...point.pictures.map((name, index) => element("td", {}, image(data, name, prompts[index])))));
  document.getElementById("sheet").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
}

function listEffects(data) {
  const table = document.getElementById("effects");
  table.tHead.replaceChildren(element("tr", {}, ...["axis", "level", "instead of", "changes", "by", "pairs", ""].map((text) => element("th", { scope: "col" }, text))));
  const rows = data.effects.map((effect) => {
    const cells = [effect.axis, effect.level, effect.against, data.quantities[effect.quantity].label, effect.text, effect.pairs, effect.verdict];
    return element("tr", {}, ...cells.map((text, index) => element("td", { className: index === 6 ? effect.verdict : index === 4 ? "number" : "" }, String(text))));
  });
  table.tBodies[0].replaceChildren(...rows);
}
