"use strict";

// The attacks, on one image x.  A goal says what is looked for: {to: t} that the answer is t,
// {from: y} that it is anything but y, {to: t, from: y} that t is ahead of y.  A search is a
// generator, so that the page can draw between two of its steps; it returns {size, x}, the smallest
// noise and the image with it, and infinity where it found none.

// Of two logits, what may be the rounding of their difference, as a share of the largest.
const ROUNDING = 2 ** -18;

const clipped = (value) => (value < 0 ? 0 : value > 1 ? 1 : value);
const along = (x, direction, size) => x.map((value, i) => clipped(value + size * direction[i]));
const minus = (p, x) => p.map((value, i) => value - x[i]);
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const length = (r) => Math.sqrt(dot(r, r));
const largest = (r) => r.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// The classes that a goal compares: [ahead, behind].
function rivals(z, { to, from }) {
  const best = (left) => answer(z.map((value, k) => (k === left ? -Infinity : value)));
  return [to ?? best(from), from ?? best(to)];
}

// How far a goal is reached, in logits: positive where it is, by more than rounding.
function margin(z, goal) {
  const [ahead, behind] = rivals(z, goal);
  return z[ahead] - z[behind] - ROUNDING * largest(z);
}

const isReached = (network, x, goal) => margin(logits(network, x), goal) > 0;

function slopeOfMargin(network, values, goal) {
  const z = values.at(-1);
  const [ahead, behind] = rivals(z, goal);
  return gradient(network, values, z.map((_, k) => (k === ahead) - (k === behind)));
}

// The fast gradient sign method (Goodfellow et al. 2015, section 4): sign(∇ₓ J(x, y)), where
// J = -log p_y.  The gradient by the logits is divided by 1 - p_y, which changes no sign.
function gradientSign(network, x, y) {
  const values = forward(network, x);
  const g = softmax(values.at(-1).map((value, k) => (k === y ? -Infinity : value)));
  g[y] = -1;
  return gradient(network, values, g).map(Math.sign);
}

// Towards a target the step goes against the gradient, away from a label along it.
function signStep(network, x, { to, from }) {
  if (to === undefined) return gradientSign(network, x, from);
  return gradientSign(network, x, to).map((sign) => -sign);
}

// The first eps up to 1 at which x + eps · direction reaches the goal, or null: on a grid of 0.001,
// then by bisection, as in smallest_eps.py.
function* firstOnLine(network, x, direction, goal) {
  const reached = (eps) => isReached(network, along(x, direction, eps), goal);
  let point = 0;
  while (!reached(point / 1000)) {
    if (point === 1000) return null;
    point++;
    yield;
  }
  let [low, high] = [Math.max(point - 1, 0) / 1000, point / 1000];
  while (high - low > 1e-4) {
    const eps = (low + high) / 2;
    if (reached(eps)) high = eps;
    else low = eps;
  }
  return high;
}

// The hit, moved towards x along the straight line while it stays one.
function pulled(network, x, hit, goal) {
  const way = minus(hit, x);
  let [low, high] = [0, 1];
  for (let halving = 0; halving < 10; halving++) {
    const part = (low + high) / 2;
    if (isReached(network, along(x, way, part), goal)) high = part;
    else low = part;
  }
  return along(x, way, high);
}

// Frank-Wolfe steps inside a box that shrinks, as in method2_fgsm/frank_wolfe.py with one start.
function* frankWolfe(network, x, goal, steps) {
  let values = forward(network, x);
  let slope = slopeOfMargin(network, values, goal);
  const free = slope.map((s, i) => ((s > 0 ? x[i] < 1 : x[i] > 0) ? Math.abs(s) : 0));
  const needed = -margin(values.at(-1), goal) / (free.reduce((a, b) => a + b, 0) || 1);
  let eps = 2 * Math.min(Math.max(needed, 1e-4), 1);
  let [size, best, p, m] = [Infinity, null, x, new Float64Array(x.length)];
  for (let i = 0; i < steps; i++) {
    const falling = 0.01 ** (i / Math.max(steps - 1, 1));
    const hit = margin(values.at(-1), goal) > 0;
    const noise = largest(minus(p, x));
    if (hit && noise < size) [size, best] = [noise, p];
    eps = hit ? Math.min(eps, size) * (1 - 0.1 * falling) : eps * (1 + 0.1 * falling);
    eps = Math.min(eps, size * (1 - 1e-4), 1);
    const steepness = slope.reduce((sum, s) => sum + Math.abs(s), 0) || 1;
    m = m.map((value, j) => 0.95 * value + (0.05 * slope[j]) / steepness);
    const corner = along(x, m.map(Math.sign), eps);
    p = p.map((value, j) => {
      const moved = value + falling * ((m[j] === 0 ? value : corner[j]) - value);
      return Math.min(Math.max(moved, x[j] - eps), x[j] + eps);
    });
    yield;
    values = forward(network, p);
    slope = slopeOfMargin(network, values, goal);
  }
  if (best === null) return { size };
  best = pulled(network, x, best, goal);
  return { size: largest(minus(best, x)), x: best };
}

// The root s of lead + Σ_j weights_j min(s, knots_j), or null.
function root(lead, weights, knots) {
  const order = Array.from(knots.keys()).sort((a, b) => knots[a] - knots[b]);
  let [slope, value, knot] = [weights.reduce((a, b) => a + b, 0), lead, 0];
  if (value >= 0) return 0;
  for (const j of order) {
    const next = value + slope * (knots[j] - knot);
    if (next >= 0) return knot - value / slope;
    [value, knot] = [next, knots[j]];
    slope -= weights[j];
  }
  return null;
}

// How far each pixel can go along c inside [0, 1].
const room = (x, c) => c.map((slope, j) => (slope > 0 ? 1 - x[j] : x[j]));

// The point of [0, 1] nearest to x at which lead + c · (p - x) is not below zero, and whether there
// is one; otherwise the corner that comes closest.
function nearestPoint(x, c, lead) {
  const knots = room(x, c).map((far, j) => (c[j] === 0 ? 0 : far / Math.abs(c[j])));
  const mu = root(lead, c.map((slope) => slope * slope), knots);
  return { p: mu === null ? along(x, c.map(Math.sign), 1) : along(x, c, mu), exists: mu !== null };
}

const isLinear = (network) => !network.layers.some((layer) => layer.relu);

// The exact answer for a linear classifier that is to see anything but y: for each rival k alone,
// whose z_k - z_y is linear, and of these the smallest.  norm: that of the noise, 2 or Infinity.
// lead: by how much z_k has to be ahead.
function* exact(network, x, y, norm, lead = 0) {
  const values = forward(network, x);
  const z = values.at(-1);
  let best = { size: Infinity };
  for (const to of z.keys()) {
    if (to === y) continue;
    const c = slopeOfMargin(network, values, { to, from: y });
    const missing = z[to] - z[y] - lead;
    let found = { size: Infinity };
    if (norm === 2) {
      const { p, exists } = nearestPoint(x, c, missing);
      if (exists) found = { size: length(minus(p, x)), x: p };
    } else {
      const eps = root(missing, c.map(Math.abs), room(x, c));
      if (eps !== null) found = { size: eps, x: along(x, c.map(Math.sign), eps) };
    }
    if (found.size < best.size) best = found;
    yield;
  }
  return best;
}

// The shortest noise from one start: the nearest point of an averaged linearisation, again and
// again, as in method1_noise_optimization/minimal.py, but without its random steps.
// hold: how much of the way from x a step keeps.
function* descend(network, x, goal, steps, hold) {
  const z = logits(network, x);
  const unit = Math.max(Math.max(...z) - Math.min(...z), 1e-12);
  let [size, best, p, aim] = [Infinity, null, x, 8e-5 * unit];
  let slope = new Float64Array(x.length);
  for (let i = 0; i < steps; i++) {
    const done = i / steps;
    const values = forward(network, p);
    const hit = margin(values.at(-1), goal) > 0;
    const far = length(minus(p, x));
    if (hit && far < size) [size, best] = [far, p];
    aim = Math.min(Math.max(aim * (hit ? 0.8 : 1.3), 8e-5 * unit), 0.08 * unit);

    const [smooth, g] = smoothMargin(values.at(-1), goal, unit * 0.25 * (8e-4 / 0.25) ** done);
    const weight = (10 / (i + 10)) * Math.min(2 * (1 - done), 1);
    const now = gradient(network, values, g);
    slope = slope.map((s, j) => s + weight * (now[j] - s));
    const held = x.map((value, j) => value + hold * (1 - done) * (p[j] - value));
    ({ p } = nearestPoint(held, slope, smooth - aim + dot(slope, minus(held, p))));
    yield;
  }
  if (best === null) return { size };
  best = pulled(network, x, best, goal);
  return { size: length(minus(best, x)), x: best };
}

// The margin with a smoothed maximum, and its gradient by the logits.
function smoothMargin(z, { to, from }, temperature) {
  if (from !== undefined) return [z[to] - z[from], z.map((_, k) => (k === to) - (k === from))];
  const others = z.map((value, k) => (k === to ? -Infinity : value / temperature));
  const highest = Math.max(...others);
  const sum = others.reduce((total, value) => total + Math.exp(value - highest), 0);
  const smooth = z[to] - temperature * (highest + Math.log(sum));
  return [smooth, softmax(others).map((p, k) => (k === to) - p)];
}

// A search for the goal.  Without a target: a few steps towards each of the nine likeliest rivals,
// then many towards the best of them.
function* smallest(search, z, goal, few, many) {
  if (goal.to !== undefined) return yield* search(goal, many + few * 9);
  const order = Array.from(z.keys()).filter((k) => k !== goal.from).sort((a, b) => z[b] - z[a]);
  let [best, nearest] = [{ size: Infinity }, order[0]];
  for (const to of order.slice(0, 9)) {
    const found = yield* search({ to, from: goal.from }, few);
    if (found.size < best.size) [best, nearest] = [found, to];
  }
  const found = yield* search({ to: nearest, from: goal.from }, many);
  return found.size < best.size ? found : best;
}

// The smallest eps that a hundred steps find.
function smallestEps(network, x, goal) {
  const search = (rival, steps) => frankWolfe(network, x, rival, steps);
  return smallest(search, logits(network, x), goal, 3, 73);
}

// The smallest |r|₂ that one start finds.
function smallestNoise(network, x, goal) {
  const hold = goal.to === undefined ? 1 : 0;
  const search = (rival, steps) => descend(network, x, rival, Math.min(steps, 120), hold);
  return smallest(search, logits(network, x), goal, 20, 120);
}
