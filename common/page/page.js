"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const networks = data.networks.map(opened);
const [height, width, channels = 1] = data.shape;
const size = height * width * channels;
const STEPS_OF_SLIDER = 1000;
// Matplotlib's RdBu_r, in which the figures draw noise: blue is less ink, red is more.
const DIVERGING = ["053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582",
  "d6604d", "b2182b", "67001f"].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const SEARCHING = "searching …";

// y: the true class, or null of a drawing.  target: a class, or null for any wrong answer.
// ray: {direction, size} of the noise, and |r|₂ or eps, whichever the method measures.
// marks: what was found for the slider.  scores: the logits along the ray.
const state = { network: networks[0], method: "sign", target: null, eps: 0, marks: {}, scores: [] };

function el(id) {
  return document.getElementById(id);
}

function samples() {
  const pixels = decode(data.images);
  return data.labels.map((y, k) => ({ y, x: Float64Array.from(pixels.slice(k * size, (k + 1) * size)) }));
}

// Words and numbers ---------------------------------------------------------------------------

function called(k) {
  if (!data.digits) return `“${data.names[k]}”`;
  return `${k === 8 ? "an" : "a"} ${data.names[k]}`;
}

function percent(p) {
  const digits = p > 0.995 && p < 1 ? 2 : p < 0.0995 ? 1 : 0;
  return `${(100 * p).toFixed(digits)} %`;
}

function short(number) {
  return number.toFixed(number < 0.01 ? 4 : 3);
}

// Pictures ------------------------------------------------------------------------------------

// One canvas pixel for each pixel; colour(i, c) from 0 to 255, of pixel i and red, green or blue c.
function paint(canvas, colour) {
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(colour(i, c));
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function paintImage(canvas, x) {
  paint(canvas, (i, c) => 255 * x[channels * i + (channels === 3 ? c : 0)]);
}

function diverging(share) {
  const place = (DIVERGING.length - 1) * clipped((share + 1) / 2);
  const [low, part] = [Math.floor(place), place % 1];
  const high = Math.min(low + 1, DIVERGING.length - 1);
  return DIVERGING[low].map((value, c) => value + part * (DIVERGING[high][c] - value));
}

// Noise from -limit to limit; in colour grey is none.
function paintNoise(canvas, r, limit) {
  const share = (at) => (limit > 0 ? r[at] / limit : 0);
  if (channels === 3) paint(canvas, (i, c) => 127.5 * (1 + share(3 * i + c)));
  else paint(canvas, (i, c) => diverging(share(i))[c]);
}

// A drawing as MNIST has its digits: scaled into 20 of 28 pixels, strokes of the same width, its
// mass in the middle.  strokes: lists of points [across, down].
function likeMnist(strokes) {
  const points = strokes.flat();
  const side = Math.min(height, width) / 28;
  const radius = 1.2 * side;
  const ends = (k) => [Math.min, Math.max].map((f) => f(...points.map((point) => point[k])));
  const [across, down] = [ends(0), ends(1)];
  const extent = Math.max(across[1] - across[0], down[1] - down[0], 1);
  const scale = (20 * side - 2 * radius) / extent;
  let shift = [width / 2 - (scale * (across[0] + across[1])) / 2, height / 2 - (scale * (down[0] + down[1])) / 2];
  let image;
  for (let pass = 0; pass < 2; pass++) {
    image = Float64Array.from({ length: size }, (_, i) => {
      const pixel = [(i % width) + 0.5, Math.floor(i / width) + 0.5];
      const place = pixel.map((value, k) => (value - shift[k]) / scale);
      return clipped(radius + 0.5 - scale * distance(place, strokes));
    });
    const mass = image.reduce((a, b) => a + b, 0);
    const middle = [0, 0];
    image.forEach((ink, i) => {
      middle[0] += (ink * ((i % width) + 0.5)) / mass;
      middle[1] += (ink * (Math.floor(i / width) + 0.5)) / mass;
    });
    shift = [shift[0] + width / 2 - middle[0], shift[1] + height / 2 - middle[1]];
  }
  return image;
}

function distance([x, y], strokes) {
  let least = Infinity;
  for (const stroke of strokes) {
    stroke.forEach(([x1, y1], k) => {
      const [x0, y0] = stroke[Math.max(k - 1, 0)];
      const [dx, dy] = [x1 - x0, y1 - y0];
      const part = clipped(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1));
      least = Math.min(least, Math.hypot(x - x0 - part * dx, y - y0 - part * dy));
    });
  }
  return least;
}

// What is computed ----------------------------------------------------------------------------

// Searches run in slices of ten milliseconds, so that the page never stands still.
let running = null;

function run(search) {
  running = search;
  el("attack").setAttribute("aria-busy", "true");
  const slice = () => {
    if (running !== search) return;
    const end = performance.now() + 10;
    let done = false;
    while (!done && performance.now() < end) done = search.next().done;
    if (!done) return void setTimeout(slice);
    el("attack").setAttribute("aria-busy", "false");
    draw();
  };
  slice();
}

// Something else was chosen.  keep: whether ε stays where it is.
function restart(keep = false) {
  const { network, x } = state;
  state.first = logits(network, x);
  state.label = state.y ?? answer(state.first);
  for (const option of el("target").options) option.disabled = Number(option.value) === state.label;
  if (state.target === state.label) state.target = null;
  el("target").value = state.target ?? -1;
  state.goal = state.target === null ? { from: state.label } : { to: state.target };
  Object.assign(state, { ray: null, marks: {}, scores: [] });
  run(state.method === "noise" ? shortest() : smallest(keep));
  draw();
}

function* shortest() {
  const { network, x, goal } = state;
  const found = isExact()
    ? yield* exact(network, x, goal.from, "l2", 2 * ROUNDING * largest(state.first))
    : yield* smallestNoise(network, x, goal);
  if (found.size < Infinity) yield* follow(found.x.map((value, i) => value - x[i]), found.size);
  else state.ray = { size: null };
}

function* smallest(keep) {
  const { network, x, goal, method, marks } = state;
  const direction = signStep(network, x, goal);
  if (method === "sign") yield* follow(direction);
  marks.one = yield* firstOnLine(network, x, direction, goal);
  if (method === "sign" && !keep) setEps(marks.one);
  let found = isExact() ? yield* exact(network, x, goal.from, "linf") : yield* smallestEps(network, x, goal);
  if (marks.one !== null && marks.one < found.size) found = { size: marks.one, x: along(x, direction, marks.one) };
  marks.found = found.size < Infinity ? found.size : null;
  if (method === "eps") {
    if (marks.found !== null) yield* follow(found.x.map((value, i) => value - x[i]), found.size || 1);
    else state.ray = { size: null };
    if (!keep) setEps(marks.found);
  }
  if (!isLinear(network)) marks.proven = yield* largestProven(network, x, answer(state.first));
}

// The ray of this noise, whose size is `length`, and the scores along it.
function* follow(r, length = 1) {
  const { network, x, method, most } = state;
  state.ray = { direction: r.map((value) => value / length), size: length };
  state.end = method === "noise" ? 2 * length || 1 : most;
  draw();
  for (let i = 0; i <= 100; i++) {
    const at = (i / 100) * state.end;
    state.scores.push({ at, z: logits(network, along(x, state.ray.direction, at)) });
    yield;
  }
}

function isExact() {
  return state.target === null && isLinear(state.network);
}

// The slider's next place at which a size has been reached.
function setEps(eps) {
  if (eps !== null) state.eps = Math.min((Math.ceil((eps / state.most) * STEPS_OF_SLIDER) / STEPS_OF_SLIDER) * state.most, state.most);
  el("eps").value = state.eps;
}

// The end of the slider: twice what a sign step needs of the first samples, as a round number.
function endOfSlider(first) {
  let needed = 0;
  for (const network of networks) {
    for (const { x, y } of first) {
      const direction = signStep(network, x, { from: y });
      let eps = 2 ** -10;
      while (eps < 1 && answer(logits(network, along(x, direction, eps))) === y) eps *= 2;
      needed = Math.max(needed, eps);
    }
  }
  return [0.02, 0.05, 0.1, 0.2, 0.5].find((end) => end >= 2 * needed) || 1;
}

// What is drawn -------------------------------------------------------------------------------

function draw() {
  const { x, ray, method, network, first } = state;
  const known = ray && ray.direction;
  const at = method === "noise" ? known && ray.size : state.eps;
  const seen = known ? along(x, ray.direction, at) : x;
  const z = known ? logits(network, seen) : first;
  const p = softmax(z);
  const r = seen.map((value, i) => value - x[i]);
  const limit = method === "noise" ? largest(r) : state.eps;
  const [was, is] = [answer(first), answer(z)];

  paintImage(el("before"), x);
  paintNoise(el("added"), r, limit);
  paintImage(el("after"), seen);
  el("before-text").textContent = state.y === null ? "what you drew" : `${called(state.y)}: the network sees ${called(was)}, ${percent(softmax(first)[was])}`;
  el("after-text").textContent = `${called(is)}, ${percent(p[is])}`;
  el("low").textContent = `−${short(limit)}`;
  el("high").textContent = `+${short(limit)}`;
  el("before").setAttribute("aria-label", state.y === null ? "what you drew" : called(state.y));
  el("added").setAttribute("aria-label", `noise from −${short(limit)} to ${short(limit)}`);
  el("after").setAttribute("aria-label", `the picture with the noise, seen as ${called(is)}`);
  el("formula").textContent = `what is seen = ${formula()}`;
  el("sliding").hidden = el("marks").hidden = method === "noise";
  const levels = `${short(state.eps)} (${(255 * state.eps).toFixed(1)} of 255 grey levels)`;
  el("value").textContent = levels;
  el("eps").setAttribute("aria-valuetext", levels);
  el("said").textContent = said(is, p, limit);
  el("said").classList.toggle("fooled", is !== state.label);
  drawBars(p, is);
  drawMarks();
  drawScores(at);
}

function formula() {
  const { method, target, label } = state;
  const name = (k) => (data.digits ? data.names[k] : called(k));
  if (method === "noise") return "x + r, inside [0, 1], with the shortest r that was found: |r|₂ = √Σr²";
  if (method === "eps") return "clip(x + r, 0, 1), where no pixel of r is larger than ε";
  if (target === null) return `clip(x + ε · sign(∇ₓ J(x, ${name(label)})), 0, 1): away from ${name(label)}, ε for every pixel`;
  return `clip(x − ε · sign(∇ₓ J(x, ${name(target)})), 0, 1): towards ${name(target)}, ε for every pixel`;
}

// One sentence for what was just done.
function said(is, p, limit) {
  const { ray, method, label, target, marks, eps, y } = state;
  const sees = `the network sees ${called(is)} (${percent(p[is])})`;
  if (answer(state.first) !== label) return `Without any change ${sees}: it is wrong already.`;
  if (!ray) return SEARCHING;
  if (ray.size === null) return `No change was found that makes the network see ${target === null ? "anything else" : called(target)}.`;
  const you = y === null ? "what you drew" : called(y);
  const still = limit > 0.25 ? `Do you still see ${you}?` : `You still see ${you}.`;
  if (method === "noise") {
    const most = isExact() ? "No shorter noise does it: |r|₂" : "The shortest noise found has |r|₂";
    return `${most} = ${short(ray.size)}, no pixel changes by more than ${short(limit)}: ${sees}. ${still}`;
  }
  if (eps === 0) return `Nothing is changed: ${sees}. Drag ε to the right.`;
  const change = `A change of at most ${short(eps)} a pixel:`;
  if (is === label && method === "sign" && marks.one === null) {
    return `${change} ${sees}. No step in this direction ${target === null ? "fools it" : `makes it ${called(target)}`}.`;
  }
  if (is === label) return `${change} ${sees} still. Drag ε to the right.`;
  if (target !== null && is !== target) return `${change} ${sees}, not yet ${called(target)}.`;
  return `${change} ${sees}. ${still}`;
}

// At most ten classes: of more, the likeliest along the way.
function shown() {
  const classes = Array.from(data.names.keys());
  if (classes.length <= 10) return classes;
  const best = (k) => Math.max(...[state.first, ...state.scores.map((score) => score.z)].map((z) => z[k] - Math.max(...z)));
  const order = new Map(classes.map((k) => [k, best(k)]));
  const first = (k) => k === state.label || k === state.target;
  return classes.sort((a, b) => first(b) - first(a) || order.get(b) - order.get(a)).slice(0, 10);
}

function style(k, place) {
  const at = (data.names.length <= 10 ? k : place) % data.colours.length;
  return { colour: data.colours[at], dashed: data.dashed[at] };
}

function drawBars(p, is) {
  const rows = shown().map((k, place) => {
    const row = document.createElement("div");
    const part = (kind, text = "") => {
      const span = document.createElement("span");
      [span.className, span.textContent] = [kind, text];
      return row.appendChild(span);
    };
    row.setAttribute("role", "listitem");
    row.classList.toggle("answer", k === is);
    part("name", `${k === state.y ? "true: " : ""}${data.names[k]}`).title = data.names[k];
    const { colour, dashed } = style(k, place);
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.style.width = `${100 * p[k]}%`;
    bar.style.background = dashed ? `repeating-linear-gradient(90deg, ${colour} 0 6px, #fff 6px 8px)` : colour;
    part("track").append(bar);
    part("percent", percent(p[k]));
    return row;
  });
  el("bars").replaceChildren(...rows);
}

// The places on the slider that were found, as buttons that set it.
function places() {
  const { one, found, proven } = state.marks;
  const name = isExact() ? "exact: the smallest that any change needs" : "smallest found with many steps";
  return [
    ["◆", "proven: no change fools it up to", proven],
    ["●", name, found],
    ["▲", "one sign step needs", one],
  ].filter(([, , eps]) => eps !== undefined && eps !== null);
}

function drawMarks() {
  const texts = places().map(([sign, text, eps]) => `${sign} ${text} ${short(eps)}`);
  const old = Array.from(el("marks").children, (button) => button.textContent);
  if (old.join() === texts.join()) return; // a button keeps its focus
  el("marks").replaceChildren(...places().map(([, , eps], i) => {
    const button = document.createElement("button");
    [button.type, button.textContent] = ["button", texts[i]];
    button.onclick = () => {
      setEps(eps);
      draw();
    };
    return button;
  }));
}

// The scores along the ray, on axes that end where the slider does.
function drawScores(at) {
  const canvas = el("scores");
  const [wide, high, ratio] = [canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio || 1];
  [canvas.width, canvas.height] = [wide * ratio, high * ratio];
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  const { scores, method, end } = state;
  if (scores.length < 2) return;
  const [left, right, top, bottom] = [44, wide - 8, 16, high - 34];
  const values = scores.flatMap(({ z }) => Array.from(z));
  const [low, most] = [Math.min(...values), Math.max(...values)];
  const across = (value) => left + (value / end) * (right - left);
  const down = (value) => bottom - ((value - low) / (most - low || 1)) * (bottom - top);
  const line = (points, colour, thick, dashes = []) => {
    context.beginPath();
    points.forEach((point) => context.lineTo(...point));
    [context.strokeStyle, context.lineWidth] = [colour, thick];
    context.setLineDash(dashes);
    context.stroke();
  };
  const text = (words, x, y, align) => {
    context.textAlign = align;
    context.fillText(words, x, y);
  };

  for (let i = 0; i <= 5; i++) {
    const value = (i / 5) * end;
    line([[across(value), top], [across(value), bottom]], "#dddddd", 1);
    text(String(Number(value.toPrecision(3))), across(value), bottom + 14, i ? (i === 5 ? "right" : "center") : "left");
  }
  for (const value of [low, (low + most) / 2, most]) {
    line([[left, down(value)], [right, down(value)]], "#dddddd", 1);
    text(value.toFixed(most - low < 5 ? 1 : 0), left - 4, down(value) + 4, "right");
  }
  text(method === "noise" ? "|r|₂: length of the noise" : "ε: by how much each pixel may change", (left + right) / 2, high - 4, "center");
  text(`scores of the ${data.digits ? "digits" : "classes"} (logits): the highest is what the network sees`, left + 4, top - 5, "left");
  shown().forEach((k, place) => {
    const { colour, dashed } = style(k, place);
    const thick = k === state.label || k === state.target ? 3 : 1.3;
    line(scores.map(({ at: x, z }) => [across(x), down(z[k])]), colour, thick, dashed ? [6, 3] : []);
  });
  if (method !== "noise") {
    for (const [sign, , eps] of places()) {
      if (eps > end) continue;
      line([[across(eps), top], [across(eps), bottom]], "#111", 1, [2, 3]);
      text(sign, across(eps), bottom + 4, "center");
    }
  }
  line([[across(at), top - 4], [across(at), bottom + 4]], "#111", 2);
  canvas.setAttribute("aria-label", `scores along the change: at 0 the network sees ${called(answer(state.first))}, at ${short(at)} ${called(answer(logits(state.network, along(state.x, state.ray.direction, at))))}`);
}

// What is chosen ------------------------------------------------------------------------------

function option(value, text) {
  const found = document.createElement("option");
  [found.value, found.textContent] = [value, text];
  return found;
}

function choices(all) {
  const grid = document.createElement("div");
  all.forEach(({ x, y }, k) => {
    const [label, input, canvas] = ["label", "input", "canvas"].map((tag) => document.createElement(tag));
    [input.type, input.name, input.value] = ["radio", "sample", k];
    input.setAttribute("aria-label", `sample ${k + 1}: ${called(y)}`);
    label.title = called(y);
    paintImage(canvas, x);
    input.onchange = () => {
      Object.assign(state, { x, y });
      restart();
    };
    label.append(input, canvas);
    grid.append(label);
  });
  el("samples").append(grid);
}

// A field to draw in.  A pen that is moved by keys is down or up; a mouse or finger is down while
// it is pressed.
function drawing() {
  const field = el("field");
  const context = field.getContext("2d");
  let strokes = [];
  let pen = { at: [140, 140], down: false };
  let asked = false;
  const show = () => {
    context.clearRect(0, 0, 280, 280);
    Object.assign(context, { strokeStyle: "#fff", lineWidth: 22, lineCap: "round", lineJoin: "round" });
    for (const stroke of strokes) {
      context.beginPath();
      context.moveTo(...stroke[0]);
      stroke.forEach((point) => context.lineTo(...point));
      context.stroke();
    }
    if (document.activeElement === field) {
      context.fillStyle = pen.down ? "#e76300" : "#3f90da";
      context.fillRect(pen.at[0] - 3, pen.at[1] - 3, 6, 6);
    }
  };
  const changed = () => {
    show();
    if (asked || !strokes.length) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      for (const input of document.querySelectorAll("[name=sample]:checked")) input.checked = false;
      Object.assign(state, { x: likeMnist(strokes), y: null });
      restart();
    });
  };
  const place = (event) => {
    const { left, top, width: wide } = field.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top].map((value) => (280 * value) / wide);
  };
  let pressed = false;
  field.onpointerdown = (event) => {
    field.setPointerCapture(event.pointerId);
    pressed = true;
    strokes.push([place(event)]);
    changed();
  };
  field.onpointermove = (event) => {
    if (!pressed) return;
    strokes.at(-1).push(place(event));
    changed();
  };
  field.onpointerup = field.onpointercancel = () => (pressed = false);
  field.onfocus = field.onblur = show;
  field.onkeydown = (event) => {
    const way = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[event.key];
    if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) strokes.push([pen.at]);
    } else if (way) {
      pen.at = pen.at.map((value, k) => Math.min(Math.max(value + way[k], 20), 260));
      if (pen.down) strokes.at(-1).push(pen.at);
    } else return;
    event.preventDefault();
    changed();
  };
  el("clear").onclick = () => {
    [strokes, pen] = [[], { at: [140, 140], down: false }];
    show();
  };
}

function begin() {
  const all = samples();
  state.most = endOfSlider(all.slice(0, 5));
  choices(all);
  if (channels === 3) el("drawing").hidden = true;
  else drawing();
  networks.forEach(({ name }, k) => el("network").append(option(k, name)));
  el("target").append(option(-1, "any wrong answer"), ...data.names.map((_, k) => option(k, called(k))));
  Object.assign(el("eps"), { max: state.most, step: state.most / STEPS_OF_SLIDER });
  [el("scale").style.background, el("low").textContent] = [`linear-gradient(90deg, ${DIVERGING.map((rgb) => `rgb(${rgb})`)})`, ""];
  if (channels === 3) el("scale").style.background = "linear-gradient(90deg, #000, #fff)";

  let asked = false;
  el("eps").oninput = () => {
    state.eps = Number(el("eps").value);
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
  el("network").onchange = () => {
    state.network = networks[el("network").value];
    restart(true);
  };
  el("target").onchange = () => {
    const k = Number(el("target").value);
    state.target = k < 0 ? null : k;
    restart();
  };
  for (const input of document.querySelectorAll("[name=method]")) {
    input.onchange = () => {
      state.method = input.value;
      restart();
    };
  }
  window.onresize = draw;

  const start = data.digits ? Math.max(data.labels.indexOf(2), 0) : 0;
  document.querySelectorAll("[name=sample]")[start].checked = true;
  Object.assign(state, all[start]);
  if (data.digits && state.y === 2) state.target = 6;
  restart();
}

begin();
