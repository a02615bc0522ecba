"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const networks = data.networks.map(opened);
const [height, width, channels = 1] = data.shape;
const pixels = height * width * channels;
// Matplotlib's RdBu_r, in which the figures draw noise: blue is less light, red is more.
const DIVERGING = ["053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582",
  "d6604d", "b2182b", "67001f"].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

// What is chosen: network, method, target (a class, or null for any wrong answer), x, y (the true
// class, null of a drawing), eps.  What follows from it: first, the logits at x; label, the class to
// leave; goal; ray {direction, size}, along which the picture changes, null while it is looked for;
// marks, what was found for the slider, which ends at most; scores, the logits along the ray, to end.
const state = { network: networks[0], method: "sign", target: null, eps: 0 };

const el = (id) => document.getElementById(id);
const called = (k) => (data.digits ? `${k === 8 ? "an" : "a"} ${data.names[k]}` : `“${data.names[k]}”`);
const short = (number) => number.toFixed(number > 0 && number < 0.01 ? 4 : 3);

const percent = (p) => `${(100 * p).toFixed(p > 0.995 && p < 0.99995 ? 2 : p < 0.0995 ? 1 : 0)}\u00a0%`;
const isExact = () => state.target === null && isLinear(state.network);

function made(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Searches run in slices of ten milliseconds, so that the page never stands still.
let running = null;

function run(search) {
  running = search;
  el("attack").setAttribute("aria-busy", "true");
  const slice = () => {
    if (running !== search) return;
    const end = performance.now() + 10;
    let done = false;
    while (!done && performance.now() < end) ({ done } = search.next());
    if (!done) setTimeout(slice);
    else el("attack").setAttribute("aria-busy", "false");
    if (done) draw();
  };
  slice();
}

// Something was chosen.  keep: whether ε stays where it is, instead of where the answer tips.
function choose(chosen, keep = false) {
  Object.assign(state, chosen);
  const first = logits(state.network, state.x);
  const label = state.y ?? answer(first);
  if (state.target === label) state.target = null;
  const goal = state.target === null ? { from: label } : { to: state.target };
  Object.assign(state, { first, label, goal, ray: null, marks: {}, scores: [] });
  for (const option of el("target").options) option.disabled = Number(option.value) === label;
  el("target").value = state.target ?? -1;
  run(state.method === "noise" ? shortest() : slider(keep));
  draw();
}

function* shortest() {
  const { network, x, goal, first } = state;
  const lead = 2 * ROUNDING * largest(first);
  const found = yield* isExact() ? exact(network, x, goal.from, 2, lead) : smallestNoise(network, x, goal);
  yield* follow(found);
}

function* slider(keep) {
  const { network, x, goal, method, marks, first } = state;
  const direction = signStep(network, x, goal);
  if (method === "sign") yield* follow({ direction, size: 1 });
  const one = yield* firstOnLine(network, x, direction, goal);
  marks.one = one ?? Infinity;
  if (method === "sign" && !keep) setEps(marks.one);
  let found = yield* isExact() ? exact(network, x, goal.from, Infinity) : smallestEps(network, x, goal);
  if (marks.one < found.size) found = { size: one, x: along(x, direction, one) };
  marks.found = found.size;
  if (method === "eps") yield* follow(found);
  if (method === "eps" && !keep) setEps(marks.found);
  if (!isLinear(network)) marks.proven = (yield* largestProven(network, x, answer(first))) ?? Infinity;
}

// The ray to what was found, and the scores along it.
function* follow({ size, x: found, direction }) {
  const { network, x, method, most, scores } = state;
  if (found) direction = minus(found, x).map((value) => value / (size || 1));
  state.ray = { direction, size };
  state.end = method === "noise" ? 2 * size || 1 : most;
  for (let i = 0; direction && i <= 100; i++) {
    const at = (i / 100) * state.end;
    scores.push({ at, z: logits(network, along(x, direction, at)) });
    yield;
  }
}

// The slider's next place at or above `eps`, or at or below it.
function setEps(eps, round = Math.ceil) {
  if (eps < Infinity) state.eps = Math.min(round((eps / state.most) * 1000) / 1000, 1) * state.most;
  el("eps").value = state.eps;
  draw();
}

// The end of the slider: a round number, twice what fools the networks on a few samples.
function endOfSlider(few) {
  const fools = (network, { x, y }, eps) =>
    isReached(network, along(x, signStep(network, x, { from: y }), eps), { from: y });
  const all = (eps) => networks.every((network) => few.every((one) => fools(network, one, eps)));
  return [0.02, 0.05, 0.1, 0.2, 0.5].find((end) => all(end / 2)) ?? 1;
}

// colour(at, c): from 0 to 255, of the channel c of the pixel that begins at `at` in the image.
function paint(canvas, colour) {
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  image.data.fill(255);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(colour(channels * i, c));
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const paintImage = (canvas, x) => paint(canvas, (at, c) => 255 * x[channels === 3 ? at + c : at]);

// Noise from -limit to limit; in colour grey is none.
function paintNoise(canvas, r, limit) {
  const share = (at) => (limit > 0 ? (clipped(0.5 + r[at] / limit / 2)) : 0.5);
  paint(canvas, (at, c) => {
    if (channels === 3) return 255 * share(at + c);
    const place = 10 * share(at);
    const [low, high] = [Math.floor(place), Math.ceil(place)].map((k) => DIVERGING[k][c]);
    return low + (place % 1) * (high - low);
  });
}

// A drawing as MNIST has its digits: scaled into 20 of 28 pixels, its mass in the middle.
// strokes: lists of points [across, down].
function likeMnist(strokes) {
  const lines = strokes.flatMap((stroke) => stroke.map((end, k) => [stroke[Math.max(k - 1, 0)], end]));
  const lengths = lines.map(([[x0, y0], [x1, y1]]) => Math.hypot(x1 - x0, y1 - y0) + 1e-6);
  const total = lengths.reduce((a, b) => a + b, 0);
  const ends = (f, k) => f(...strokes.flat().map((point) => point[k]));
  const extent = Math.max(1, ...[0, 1].map((k) => ends(Math.max, k) - ends(Math.min, k)));
  const unit = Math.min(height, width) / 28;
  const scale = (17.6 * unit) / extent;
  const middle = [0, 1].map((k) =>
    lines.reduce((sum, [a, b], i) => sum + ((a[k] + b[k]) / 2) * (lengths[i] / total), 0));
  const distance = ([x, y], [[x0, y0], [x1, y1]], long) => {
    const part = clipped(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / long ** 2);
    return Math.hypot(x - x0 - part * (x1 - x0), y - y0 - part * (y1 - y0));
  };
  return Float64Array.from({ length: pixels }, (_, i) => {
    const point = [(i % width) + 0.5 - width / 2, Math.floor(i / width) + 0.5 - height / 2];
    const place = point.map((value, k) => value / scale + middle[k]);
    const near = Math.min(...lines.map((line, k) => distance(place, line, lengths[k])));
    return clipped(1.2 * unit + 0.5 - scale * near);
  });
}

function formula() {
  const { method, target, label } = state;
  if (method === "noise") return "x + r inside [0, 1], r the shortest found: |r|₂ = √Σr²";
  if (method === "eps") return "clip(x + r, 0, 1), no pixel of r larger than ε";
  const [sign, k, way] = target === null ? ["+", label, "away from"] : ["−", target, "towards"];
  const name = data.names[k];
  return `clip(x ${sign} ε · sign(∇ₓ J(x, ${name})), 0, 1): ε for every pixel, ${way} ${name}`;
}

// One sentence for what was just done.
function said(is, p, limit) {
  const { ray, method, label, target, marks, eps, y, first } = state;
  const sees = `sees ${called(is)} (${percent(p)})`;
  const aim = target === null ? "fools it" : `makes it ${called(target)}`;
  if (answer(first) !== label) return `Without any change the network ${sees}: it is wrong already.`;
  if (!ray) return "searching …";
  if (ray.size === Infinity) return `No change was found that ${aim}.`;
  const you = y === null ? "what you drew" : called(y);
  const still = limit > 0.25 ? `Do you still see ${you}?` : `You still see ${you}.`;
  if (method === "noise") {
    const found = isExact() ? "The exact optimum, shorter is impossible" : "The shortest noise found";
    return `${found}: |r|₂ = ${short(ray.size)}, at most ${short(limit)} a pixel. The network ${sees}. ${still}`;
  }
  if (eps === 0) return `Nothing is changed: the network ${sees}. Drag ε to the right.`;
  const change = `A change of at most ${short(eps)} a pixel: the network`;
  const stuck = method === "sign" && marks.one === Infinity;
  const hint = stuck ? `No sign step ${aim}: try many steps.` : "Drag ε to the right.";
  if (is === label) return `${change} still ${sees}. ${hint}`;
  if (target !== null && is !== target) return `${change} ${sees}, not ${called(target)}. ${stuck ? hint : ""}`;
  return `${change} ${sees}. ${still}`;
}

// The places on the slider that were found: [sign, words, eps].
function places() {
  const { proven: none, found, one } = state.marks;
  const name = isExact() ? "exact: the smallest that any change needs" : "smallest found with many steps";
  return [["◆", "proven: nothing fools it up to", none], ["●", name, found], ["▲", "one sign step needs", one]]
    .filter(([, , eps]) => eps < Infinity);
}

function draw() {
  const { x, y, ray, method, network, first, eps } = state;
  const { direction, size } = ray ?? {};
  const at = method === "noise" ? size : eps;
  const seen = direction ? along(x, direction, at) : x;
  const z = direction ? logits(network, seen) : first;
  const [p, is] = [softmax(z), answer(z)];
  const r = minus(seen, x);
  const limit = method === "noise" ? largest(r) : eps;

  paintImage(el("before"), x);
  paintNoise(el("added"), r, limit);
  paintImage(el("after"), seen);
  const levels = `${short(eps)} (${(255 * eps).toFixed(1)} of 255 grey levels)`;
  const texts = {
    "before-text": `seen as ${called(answer(first))}, ${percent(Math.max(...softmax(first)))}`,
    "after-text": `seen as ${called(is)}, ${percent(p[is])}`,
    low: `−${short(limit)}`,
    high: `+${short(limit)}`,
    formula: `what it sees = ${formula()}`,
    value: levels,
    said: said(is, p[is], limit),
  };
  for (const [id, text] of Object.entries(texts)) el(id).textContent = text;
  el("before").ariaLabel = y === null ? "what you drew" : called(y);
  el("added").ariaLabel = `noise from −${short(limit)} to +${short(limit)}`;
  el("after").ariaLabel = `the picture with the noise, ${texts["after-text"]}`;
  el("eps").setAttribute("aria-valuetext", levels);
  el("said").classList.toggle("fooled", is !== state.label);
  el("sliding").hidden = el("marks").hidden = method === "noise";
  drawMarks();
  drawBars(p, is);
  drawScores(at, `scores along the change: ${texts["before-text"]}; then ${texts["after-text"]}`);
}

function drawMarks() {
  const texts = places().map(([sign, words, eps]) => `${sign} ${words} ${short(eps)}`);
  if (Array.from(el("marks").children, (mark) => mark.textContent).join() === texts.join()) return;
  const marks = places().map(([sign, , eps], i) => {
    const onclick = () => setEps(eps, sign === "◆" ? Math.floor : Math.ceil);
    return made("button", { type: "button", textContent: texts[i], onclick });
  });
  el("marks").replaceChildren(...marks);
}

// At most ten classes: of more, those with the highest scores along the way.
function shown() {
  const { scores, first, label, target } = state;
  const highest = data.names.map((_, k) => Math.max(first[k], ...scores.map(({ z }) => z[k])));
  const rank = (k) => (k === label || k === target ? Infinity : highest[k]);
  const classes = Array.from(highest.keys());
  return classes.length > 10 ? classes.sort((a, b) => rank(b) - rank(a) || a - b).slice(0, 10) : classes;
}

function drawBars(p, is) {
  const rows = shown().map((k) => {
    const colour = data.colours[k % 10];
    const stripes = `repeating-linear-gradient(90deg, ${colour} 0 6px, #fff 6px 8px)`;
    const bar = made("span", { className: "bar" });
    Object.assign(bar.style, { width: `${100 * p[k]}%`, background: data.dashed[k % 10] ? stripes : colour });
    const name = `${k === state.y ? "true: " : ""}${data.names[k]}`;
    return made("div", { role: "listitem", className: k === is ? "answer" : "" },
      made("span", { className: "name", textContent: name, title: name }),
      made("span", { className: "track" }, bar),
      made("span", { className: "percent", textContent: percent(p[k]) }));
  });
  el("bars").replaceChildren(...rows);
}

// The scores along the ray, on an axis that begins and ends where the slider does.
function drawScores(at, label) {
  const canvas = el("scores");
  const { scores, method, end } = state;
  const [wide, high, ratio] = [canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio];
  Object.assign(canvas, { width: wide * ratio, height: high * ratio, ariaLabel: label });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  if (scores.length < 2) return;
  const [left, right, top, bottom] = [44, wide - 8, 16, high - 34];
  const values = scores.flatMap(({ z }) => Array.from(z));
  const [low, most] = [Math.min(...values), Math.max(...values)];
  const across = (value) => left + (value / end) * (right - left);
  const down = (value) => bottom - ((value - low) / (most - low || 1)) * (bottom - top);
  const line = (points, strokeStyle, lineWidth, dashes = []) => {
    Object.assign(context, { strokeStyle, lineWidth });
    context.setLineDash(dashes);
    context.beginPath();
    for (const point of points) context.lineTo(...point);
    context.stroke();
  };
  const upright = (value, ...style) => line([[across(value), top], [across(value), bottom]], ...style);
  const text = (words, x, y, textAlign = "center") => {
    Object.assign(context, { textAlign });
    context.fillText(words, x, y);
  };

  const unit = 10 ** Math.floor(Math.log10(end / 3));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((apart) => end / apart < 6);
  for (let value = 0; value <= end * 1.001; value += step) {
    upright(value, "#dddddd", 1);
    text(Number(value.toPrecision(3)), Math.min(across(value), right - 4), bottom + 14);
  }
  for (const value of [low, (low + most) / 2, most]) {
    line([[left, down(value)], [right, down(value)]], "#dddddd", 1);
    text(value.toFixed(most - low < 5 ? 1 : 0), left - 4, down(value) + 4, "right");
  }
  text(method === "noise" ? "|r|₂: length of the noise" : "ε: by how much a pixel may change", wide / 2, high - 4);
  text(`scores of the ${data.digits ? "digits" : "classes"} (logits): the highest is seen`, left + 4, top - 5, "left");
  for (const k of shown()) {
    const thick = k === state.label || k === state.target ? 3 : 1.3;
    const points = scores.map((score) => [across(score.at), down(score.z[k])]);
    line(points, data.colours[k % 10], thick, data.dashed[k % 10] ? [6, 3] : []);
  }
  for (const [sign, , eps] of method === "noise" ? [] : places().filter((place) => place[2] <= end)) {
    upright(eps, "#111", 1, [2, 3]);
    text(sign, across(eps), bottom + 4);
  }
  upright(at, "#111", 2);
}

// A field to draw in.  A mouse or finger draws while it is pressed, a pen that is moved by the arrow
// keys while the space bar has put it down.
function drawing() {
  const field = el("field");
  const context = field.getContext("2d");
  Object.assign(context, { strokeStyle: "#fff", fillStyle: "#bbb", lineWidth: 22, lineCap: "round" });
  Object.assign(context, { lineJoin: "round", font: "15px sans-serif", textAlign: "center" });
  const middle = [140, 140];
  let [strokes, pen, pressed, down] = [[], middle, false, false];
  const show = () => {
    context.clearRect(0, 0, 280, 280);
    if (!strokes.length) context.fillText("press and move here", ...middle);
    for (const stroke of strokes) {
      context.beginPath();
      for (const point of [stroke[0], ...stroke]) context.lineTo(...point);
      context.stroke();
    }
    if (field.matches(":focus-visible")) context.fillText(down ? "●" : "○", pen[0], pen[1] + 5);
  };
  const move = (point, begins) => {
    if (begins) strokes.push([]);
    strokes.at(-1).push(point);
    for (const input of document.querySelectorAll("[name=sample]:checked")) input.checked = false;
    choose({ x: likeMnist(strokes), y: null });
    show();
  };
  const place = (event) => [event.offsetX, event.offsetY].map((value) => (280 * value) / field.clientWidth);
  field.onpointerdown = (event) => {
    field.setPointerCapture(event.pointerId);
    pressed = true;
    move(place(event), true);
  };
  field.onpointermove = (event) => pressed && move(place(event), false);
  field.onpointerup = field.onpointercancel = () => (pressed = false);
  field.onfocus = field.onblur = show;
  field.onkeydown = (event) => {
    const ways = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10], " ": [0, 0] };
    const way = ways[event.key];
    if (!way) return;
    event.preventDefault();
    if (event.key === " ") down = !down;
    pen = pen.map((value, k) => Math.min(Math.max(value + way[k], 20), 260));
    if (down) move(pen, event.key === " ");
    else show();
  };
  el("clear").onclick = () => {
    [strokes, pen, pressed, down] = [[], middle, false, false];
    show();
  };
  show();
}

function begin() {
  const values = Float64Array.from(decode(data.images));
  const samples = data.labels.map((y, k) => ({ y, x: values.slice(k * pixels, (k + 1) * pixels) }));
  const radios = samples.map(({ x, y }, k) => {
    const [ariaLabel, onchange] = [`sample ${k + 1}: ${called(y)}`, () => choose({ x, y })];
    const radio = made("input", { type: "radio", name: "sample", ariaLabel, onchange });
    const canvas = made("canvas");
    paintImage(canvas, x);
    el("grid").append(made("label", { title: called(y) }, radio, canvas));
    return radio;
  });
  if (channels === 3) el("drawing").hidden = true;
  else drawing();

  networks.forEach(({ name, layers }, value) => {
    const count = layers.reduce((sum, { kernel, bias }) => sum + kernel.length + bias.length, 0);
    el("network").append(made("option", { value, textContent: `${name}, ${count.toLocaleString("en")} weights` }));
  });
  data.names.forEach((_, value) => el("target").append(made("option", { value, textContent: called(value) })));
  el("network").onchange = () => choose({ network: networks[el("network").value] }, true);
  el("target").onchange = () => choose({ target: el("target").value < 0 ? null : Number(el("target").value) });
  for (const input of document.getElementsByName("method")) {
    input.onchange = () => choose({ method: input.value });
  }
  state.most = endOfSlider(samples.slice(0, 5));
  Object.assign(el("eps"), { max: state.most, step: state.most / 1000 });
  el("eps").oninput = () => {
    state.eps = Number(el("eps").value);
    draw();
  };
  const colours = channels === 3 ? ["#000", "#fff"] : DIVERGING.map((rgb) => `rgb(${rgb})`);
  el("scale").style.background = `linear-gradient(90deg, ${colours})`;
  window.onresize = draw;
  // A 2 that is to be seen as a 6.
  const start = data.digits ? Math.max(data.labels.indexOf(2), 0) : 0;
  radios[start].checked = true;
  choose({ ...samples[start], target: data.digits ? 6 : null });
}

begin();
