"use strict";
// Two maps that move as one. What each shows is a pair (map, layer); tiles, areas and points come from the server.
const $ = (id) => document.getElementById(id);
const SIDES = ["left", "right"];
const state = { maps: [], changes: [], cut: 50, off: new Set(), point: null, sides: [{ map: 0, layer: "image" }, { map: 0, layer: "classes" }] };
const panes = [];
const marks = [];
let asked = new AbortController();
let waiting = 0;

const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(share < 0.0995 && share > 0 ? 1 : 0)} %`);
const hectares = (m2) => (m2 / 1e4).toLocaleString("en", { maximumFractionDigits: m2 < 1e5 ? 2 : m2 < 1e6 ? 1 : 0 });

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "color") made.style.setProperty("--color", value);
    else if (name === "width") made.style.width = value;
    else if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

async function get(path, signal) {
  const answer = await fetch(path, { signal });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  trouble("");
  return said;
}

// What can be chosen on a side: [value, text], in groups. A value is the name of a layer, or image, or between (two maps).
function choices(side) {
  const map = state.maps[state.sides[side].map];
  const plain = map.image ? [["image", "Image"]] : [];
  const groups = [];
  for (const layer of map.layers) {
    if (layer.bands.length) groups.push([capital(layer.title), layer.bands.map((band, k) => [`${layer.name}/${k + 1}`, band.name])]);
    else plain.push([layer.name, capital(layer.title)]);
  }
  const other = state.sides[1 - side].map;
  if (other !== state.sides[side].map && state.changes[state.sides[side].map].includes(other)) plain.push(["between", `Change, ${dated(Math.min(...both()))} to ${dated(Math.max(...both()))}`]);
  return { plain, groups };
}

const both = () => state.sides.map((side) => side.map);
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const dated = (k) => state.maps[k].label;

function fillLayers(side) {
  const { plain, groups } = choices(side);
  const option = ([value, text]) => node("option", { value }, text);
  const box = $(`${SIDES[side]}-layer`);
  box.replaceChildren(...plain.map(option), ...groups.map(([label, entries]) => node("optgroup", { label }, ...entries.map(option))));
  const values = [...box.options].map((one) => one.value);
  if (!values.includes(state.sides[side].layer)) state.sides[side].layer = values.includes("classes") ? "classes" : values[0];
  box.value = state.sides[side].layer;
}

function tilesOf(side) {
  const { map, layer } = state.sides[side];
  const seen = state.maps[map];
  const query = `?e=${seen.edition}&off=${[...state.off].sort().join(",")}`;
  const end = "{z}/{x}/{y}.png";
  if (layer === "image") return null;
  if (layer === "between") return { path: `change/${Math.min(...both())}/${Math.max(...both())}/${end}${query}`, least: Math.max(...both().map((k) => state.maps[k].least)) };
  const [name, band] = layer.split("/");
  return { path: `map/${map}/${name}/${band || 1}/${end}${query}`, least: seen.least };
}

function source(path, map, least, deepest) {
  const [west, south, east, north] = map.bounds;
  return { type: "raster", tiles: [new URL(path, location.href).href.replaceAll("%7B", "{").replaceAll("%7D", "}")], tileSize: 256, minzoom: least, maxzoom: Math.max(least, deepest), bounds: [west, south, east, north] };
}

function draw(side) {
  const pane = panes[side];
  const map = state.maps[state.sides[side].map];
  for (const id of ["over", "image"]) {
    if (pane.getLayer(id)) pane.removeLayer(id);
    if (pane.getSource(id)) pane.removeSource(id);
  }
  if (map.image) {
    pane.addSource("image", source(`image/${state.sides[side].map}/{z}/{x}/{y}.png?e=${map.edition}`, map, map.image.least, Math.max(map.native, map.image.least)));
    pane.addLayer({ id: "image", type: "raster", source: "image", paint: { "raster-fade-duration": 0 } });
  }
  const over = tilesOf(side);
  if (over) {
    pane.addSource("over", source(over.path, map, over.least, map.native));
    pane.addLayer({ id: "over", type: "raster", source: "over", paint: { "raster-resampling": "nearest", "raster-fade-duration": 0, "raster-opacity": $("opacity").value / 100 } });
  }
  const chosen = $(`${SIDES[side]}-layer`).selectedOptions[0];
  const group = chosen.parentElement.label;
  const text = group ? `${chosen.text}: ${group.toLowerCase()}` : chosen.text;
  $(`tag-${SIDES[side]}`).textContent = state.maps.length > 1 && state.sides[side].layer !== "between" ? `${map.label} · ${text}` : text;
}

function redraw() {
  SIDES.forEach((_, side) => { fillLayers(side); draw(side); });
  const map = state.maps[state.sides[1].map];
  const title = both()[0] === both()[1] ? map.name : `${dated(both()[0])} and ${dated(both()[1])}`;
  $("title").textContent = title;
  document.title = `${title} - citycover`;
  $("made").textContent = [map.made, map.size, map.crs].filter(Boolean).join(" · ");
  $("random").hidden = !state.sides.some((side) => state.maps[side.map].random);
  const ramped = state.sides.map((side, k) => [side.layer, $(`tag-${SIDES[k]}`).textContent]).filter(([layer]) => !["image", "between", "classes", "second"].includes(layer));
  $("ramp").hidden = !ramped.length;
  $("ramp-of").textContent = ramped.length ? ramped.map(([, text]) => text).join(", ") + (ramped.some(([layer]) => ["entropy", "disagreement", "change"].includes(layer)) ? " (entropy, disagreement, lost trust: red is high)" : "") : "";
  count();
  showPoint();
}

function windowSeen() {
  const bounds = panes[0].getBounds().toArray().flat();
  return bounds.map((v) => v.toFixed(7)).join(",");
}

// Areas of what is in view, of one map, or of two beside each other.
async function count() {
  asked.abort();
  asked = new AbortController();
  const [one, other] = both();
  const signal = asked.signal;
  const bounds = windowSeen();
  if (!$("counted").textContent) $("counted").textContent = "Counting …";
  try {
    const shown = one === other ? [other] : [Math.min(one, other), Math.max(one, other)];
    if (shown.some((k) => panes[0].getZoom() + 1 < state.maps[k].least)) {
      $("counted").textContent = "Zoom in to count.";
      return;
    }
    const together = shown.length === 2 && state.changes[shown[0]].includes(shown[1]);
    const found = together ? await get(`changes/${shown[0]}/${shown[1]}?in=${bounds}`, signal) : await get(`areas/${other}?in=${bounds}`, signal);
    $("changed").hidden = !together;
    if (together) { showBoth(shown, found); showChange(shown, found); } else showOne(other, found);
  } catch (error) {
    if (error.name !== "AbortError") trouble(error.message);
  }
}

function showOne(k, found) {
  const map = state.maps[k];
  const total = found.classes.reduce((sum, row) => sum + row.m2, 0);
  const rows = map.legend.map((entry, at) => ({ ...entry, m2: found.classes[at].m2, cells: [hectares(found.classes[at].m2), percent(total ? found.classes[at].m2 / total : 0)] }));
  showAreas(["ha", "%"], rows, total ? "" : "No part of the map is in view.", found.metres);
}

function showBoth(shown, found) {
  const rows = found.classes.map((row) => ({ ...row, m2: row.after_m2, cells: [hectares(row.before_m2), hectares(row.after_m2), signed(row.after_m2 - row.before_m2)] }));
  showAreas([...shown.map((k) => `${dated(k)}, ha`), "+/−"], rows, found.compared_m2 ? "Where both maps have a class." : "The two maps have no class in common places here.", found.metres);
}

// Rows are classes: id, name, color, m2 that their bar shows, and cells of text.
function showAreas(head, classes, said, metres) {
  const focused = document.activeElement?.dataset?.id;
  const most = Math.max(1, ...classes.map((row) => row.m2));
  $("areas").tHead.replaceChildren(node("tr", {}, node("th", { scope: "col" }, "class"), ...head.map((text) => node("th", { class: "n", scope: "col" }, text))));
  const rows = classes.map((row) => {
    const box = node("input", { type: "checkbox", "data-id": row.id, color: row.color });
    box.checked = !state.off.has(row.id);
    box.addEventListener("change", () => toggle(row.id));
    const label = node("label", {}, box, node("span", {}, row.name));
    const bar = node("span", { class: "share", color: row.color, width: `${(100 * row.m2) / most}%` });
    return node("tr", { class: box.checked ? null : "off" }, node("th", { scope: "row" }, label, bar), ...row.cells.map((text) => node("td", { class: "n" }, text)));
  });
  $("areas").tBodies[0].replaceChildren(...rows);
  if (focused) $("areas").querySelector(`[data-id="${focused}"]`)?.focus();
  $("counted").textContent = `${said} Counted in pixels of ${metres < 10 ? metres.toPrecision(2) : Math.round(metres)} m. Exact areas: citycover stats.`.trim();
}

const signed = (m2) => (Math.abs(m2) < 0.5 ? "0" : `${m2 > 0 ? "+" : "−"}${hectares(Math.abs(m2))}`);

function showChange(shown, found) {
  const names = new Map(shown.flatMap((k) => state.maps[k].legend.map((entry) => [entry.id, entry])));
  const share = found.compared_m2 ? found.changed_m2 / found.compared_m2 : 0;
  $("change-sum").textContent = `${dated(shown[0])} to ${dated(shown[1])}: ${hectares(found.changed_m2)} ha differ, ${percent(share)}. Much of what differs between two maps may be error.`;
  const cell = (id) => [node("span", { class: "chip", color: names.get(id)?.color }), names.get(id)?.name ?? String(id)];
  $("transitions").tBodies[0].replaceChildren(...found.transitions.slice(0, 8).map((row) => node("tr", {}, node("td", {}, ...cell(row.from)), node("td", {}, "→ ", ...cell(row.to)), node("td", { class: "n" }, `${hectares(row.m2)} ha`))));
}

function toggle(id) {
  state.off.has(id) ? state.off.delete(id) : state.off.add(id);
  $("areas").querySelector(`[data-id="${id}"]`).closest("tr").className = state.off.has(id) ? "off" : "";
  SIDES.forEach((_, side) => {
    const over = panes[side].getSource("over");
    if (over) over.setTiles(source(tilesOf(side).path, state.maps[state.sides[side].map], 0, 0).tiles);
  });
}

// What every map says of one place: a history, where there are several dates.
async function ask(place) {
  state.point = { place, said: null };
  marks.forEach((mark, side) => mark.setLngLat(place).addTo(panes[side]));
  try {
    state.point.said = await get(`point?at=${place.lng.toFixed(8)},${place.lat.toFixed(8)}`);
  } catch (error) {
    trouble(error.message);
  }
  showPoint();
}

function forget() {
  state.point = null;
  marks.forEach((mark) => mark.remove());
  showPoint();
}

function showPoint() {
  const { place, said } = state.point ?? {};
  $("point-none").hidden = Boolean(said);
  if (!said) { $("point").replaceChildren(); return; }
  const where = node("p", { class: "faint" }, `${place.lat.toFixed(6)}, ${place.lng.toFixed(6)}`);
  $("point").replaceChildren(where, ...said.flatMap((one, k) => (state.maps.length > 1 ? [node("h3", {}, dated(k))] : []).concat(pointOf(state.maps[k], one))));
}

function pointOf(map, said) {
  if (!said) return [node("p", {}, "No class: outside of the map, or nodata.")];
  const legend = new Map(map.legend.map((entry) => [entry.id, entry]));
  const classed = (id) => [node("span", { class: "chip", color: legend.get(id)?.color ?? "transparent" }), legend.get(id)?.name ?? String(id)];
  const rows = [node("tr", {}, node("th", { scope: "row" }, "class"), node("td", { colspan: 2 }, ...classed(said.class)))];
  for (const layer of map.layers) {
    const value = said[layer.name];
    if (value === undefined || layer.bands.length) continue;
    if (layer.categorical) rows.push(node("tr", {}, node("th", { scope: "row" }, layer.title), node("td", { colspan: 2 }, ...classed(value))));
    else rows.push(node("tr", {}, node("th", { scope: "row" }, layer.title), node("td", { class: "meter" }, node("i", { color: "var(--accent)", width: percent(value).replace(" ", "") })), node("td", { class: "n" }, percent(value))));
  }
  const made = [node("table", {}, node("tbody", {}, ...rows))];
  for (const layer of map.layers.filter((one) => one.bands.length && said[one.name])) {
    const bars = layer.bands.map((band, k) => [band, said[layer.name][k]]).sort((a, b) => b[1] - a[1]);
    made.push(node("p", { class: "faint" }, capital(layer.title)), node("table", {}, node("tbody", {}, ...bars.map(([band, share]) => node("tr", {}, node("th", { scope: "row" }, band.name), node("td", { class: "meter" }, node("i", { color: legend.get(band.id)?.color ?? "var(--accent)", width: `${100 * share}%` })), node("td", { class: "n" }, percent(share)))))));
  }
  return made;
}

function cut(share) {
  state.cut = Math.min(100, Math.max(0, share));
  $("stage").style.setProperty("--cut", `${state.cut}%`);
  $("edge").setAttribute("aria-valuenow", String(Math.round(state.cut)));
}

function arrange(swipe) {
  $("stage").className = swipe ? "swipe" : "sides-by-side";
  $("as-swipe").setAttribute("aria-pressed", String(swipe));
  $("as-sides").setAttribute("aria-pressed", String(!swipe));
  panes.forEach((pane) => pane.resize());
}

function fit(animate = true) {
  const boxes = state.maps.map((map) => map.bounds);
  const bounds = [Math.min(...boxes.map((b) => b[0])), Math.min(...boxes.map((b) => b[1])), Math.max(...boxes.map((b) => b[2])), Math.max(...boxes.map((b) => b[3]))];
  panes[0].fitBounds(bounds, { padding: 24, animate });
}

function scale() {
  const { lat } = panes[0].getCenter();
  const metres = (40075016.686 * Math.cos((lat * Math.PI) / 180)) / (512 * 2 ** panes[0].getZoom());
  const wanted = metres * 110;
  const ten = 10 ** Math.floor(Math.log10(wanted));
  const length = [5, 2, 1].find((k) => k * ten <= wanted) * ten;
  $("bar").style.width = `${length / metres}px`;
  $("length").textContent = length >= 1000 ? `${length / 1000} km` : `${length} m`;
}

function listen() {
  SIDES.forEach((name, side) => {
    $(`${name}-map`).addEventListener("change", (event) => { state.sides[side].map = Number(event.target.value); redraw(); });
    $(`${name}-layer`).addEventListener("change", (event) => { state.sides[side].layer = event.target.value; redraw(); });
  });
  const fade = () => panes.forEach((pane) => pane.getLayer("over") && pane.setPaintProperty("over", "raster-opacity", $("opacity").value / 100));
  $("opacity").addEventListener("input", fade);
  $("as-swipe").addEventListener("click", () => arrange(true));
  $("as-sides").addEventListener("click", () => arrange(false));
  $("in").addEventListener("click", () => panes[0].zoomIn());
  $("out").addEventListener("click", () => panes[0].zoomOut());
  $("whole").addEventListener("click", () => fit());
  const drag = (event) => {
    const box = $("stage").getBoundingClientRect();
    cut((100 * (event.clientX - box.left)) / box.width);
  };
  $("edge").addEventListener("pointerdown", (event) => { $("edge").setPointerCapture(event.pointerId); $("edge").addEventListener("pointermove", drag); });
  $("edge").addEventListener("pointerup", () => $("edge").removeEventListener("pointermove", drag));
  $("edge").addEventListener("pointercancel", () => $("edge").removeEventListener("pointermove", drag));
  $("edge").addEventListener("keydown", (event) => {
    const to = { ArrowLeft: state.cut - 2, ArrowRight: state.cut + 2, PageDown: state.cut - 10, PageUp: state.cut + 10, Home: 0, End: 100 }[event.key];
    if (to !== undefined) { cut(to); event.preventDefault(); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /SELECT|INPUT/.test(event.target.tagName)) return;
    const onMap = event.target.classList.contains("maplibregl-canvas");
    const options = $("right-layer").options;
    if (event.key >= "1" && event.key <= "9" && options[event.key - 1]) { state.sides[1].layer = options[event.key - 1].value; redraw(); }
    else if (event.key === "[") cut(state.cut - 5);
    else if (event.key === "]") cut(state.cut + 5);
    else if (event.key === "," || event.key === ".") { $("opacity").value = Number($("opacity").value) + (event.key === "," ? -10 : 10); fade(); }
    else if (event.key === "s") arrange($("stage").className !== "swipe");
    else if (event.key === "f") fit();
    else if (event.key === "Escape") forget();
    else if (event.key === "Enter" && onMap) ask(panes[0].getCenter());
  });
}

function follow(side) {
  const [own, other] = [panes[side], panes[1 - side]];
  own.on("move", () => {
    if (state.leading === undefined) state.leading = side;
    if (state.leading !== side) return;
    other.jumpTo({ center: own.getCenter(), zoom: own.getZoom() });
    scale();
    state.leading = undefined;
  });
}

async function begin() {
  const told = await get("view.json");
  // The shortest time that tells them apart: year, month or day; else their names.
  const times = [4, 7, 10].map((length) => told.maps.map((map) => map.time?.slice(0, length)));
  const clear = times.find((labels) => new Set(labels).size === labels.length && labels.every(Boolean));
  told.maps.forEach((map, k) => { map.label = clear?.[k] ?? map.name; });
  state.maps = told.maps;
  state.changes = told.changes;
  const last = told.maps.length - 1;
  state.sides = last ? [{ map: 0, layer: "classes" }, { map: last, layer: "classes" }] : [{ map: 0, layer: told.maps[0].image ? "image" : "confidence" }, { map: 0, layer: "classes" }];
  document.querySelectorAll(".date").forEach((label) => { label.hidden = !last; });
  SIDES.forEach((name, side) => {
    $(`${name}-map`).replaceChildren(...told.maps.map((map, k) => node("option", { value: k }, map.label === map.name ? map.name : `${map.label} (${map.name})`)));
    $(`${name}-map`).value = String(state.sides[side].map);
    const pane = new maplibregl.Map({ container: name, style: { version: 8, sources: {}, layers: [] }, attributionControl: false, dragRotate: false, pitchWithRotate: false, touchPitch: false, renderWorldCopies: false, maxZoom: Math.min(24, Math.max(...told.maps.map((map) => map.native)) + 3), fadeDuration: 0 });
    pane.touchZoomRotate.disableRotation();
    pane.keyboard.disableRotation();
    pane.getCanvas().setAttribute("aria-label", `Map, ${name} side`);
    pane.on("error", (event) => trouble(event.error?.message ?? "A tile cannot be shown."));
    pane.on("click", (event) => ask(event.lngLat));
    panes.push(pane);
    marks.push(new maplibregl.Marker({ element: node("div", { class: "mark", role: "img" }) }));
  });
  listen();
  await Promise.all(panes.map((pane) => new Promise((done) => pane.once("load", done))));
  SIDES.forEach((_, side) => follow(side));
  panes[0].on("moveend", () => { clearTimeout(waiting); waiting = setTimeout(count, 150); });
  panes[1].on("moveend", () => { clearTimeout(waiting); waiting = setTimeout(count, 150); });
  fit(false);
  redraw();
  scale();
  document.body.dataset.ready = "yes";
}

begin().catch((error) => trouble(/webgl/i.test(error.message) ? "The map needs WebGL, which this browser does not offer; report.html in the product needs nothing." : error.message));
