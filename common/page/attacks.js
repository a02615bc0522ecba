"use strict";

// The attacks, on one image x.  A goal says what is looked for: {to: t} that the answer is t,
// {from: y} that it is anything but y, {to: t, from: y} that t is ahead of y.  A search is a
// generator, so that the page can draw between two of its steps; each gives a ray
// {direction, size, x}: the image x + size · direction, inside [0, 1], reaches the goal.

// Of two logits, what may be the rounding of their difference, as a share of the largest.
const ROUNDING = 2 ** -18;

function clipped(value) {
  return value < 0 ? 0 : value > 1 ? 1 : value;
}

function along(x, direction, size) {
  return x.map((value, i) => clipped(value + size * direction[i]));
}

function largest(values) {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

function length(values) {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}

// The two classes whose logits a goal compares: [ahead, behind].
function rivals(z, { to, from }) {
  const best = (left) => answer(z.map((value, k) => (k === left ? -Infinity : value)));
  return [to === undefined ? best(from) : to, from === undefined ? best(to) : from];
}

// How far a goal is reached, in logits: positive where it is, by more than rounding.
function margin(z, goal) {
  const [ahead, behind] = rivals(z, goal);
  return z[ahead] - z[behind] - ROUNDING * largest(z);
}

function slopeOfMargin(network, values, goal) {
  const z = values.at(-1);
  const [ahead, behind] = rivals(z, goal);
  const g = new Float64Array(z.length);
  g[ahead] += 1;
  g[behind] -= 1;
  return gradient(network, values, g);
}

// The fast gradient sign method (Goodfellow et al. 2015, section 4): sign(∇ₓ J(x, y)), where
// J = -log p_y.  The gradient by the logits is divided by 1 - p_y, which changes no sign.
function gradientSign(network, x, y) {
  const values = forward(network, x);
  const z = values.at(-1);
  const g = softmax(z.map((value, k) => (k === y ? -Infinity : value)));
  g[y] = -1;
  return gradient(network, values, g).map(Math.sign);
}

// Towards a target the step goes against the gradient, away from a label along it.
function signStep(network, x, { to, from }) {
  if (to === undefined) return gradientSign(network, x, from);
  return gradientSign(network, x, to).map((sign) => -sign);
}

// The first eps up to 1 at which x + eps · direction reaches the goal, as smallest_eps.py finds it:
// on a grid of 0.001, then by bisection.  null where there is none.
function* firstOnLine(network, x, direction, goal) {
  const reached = (eps) => margin(logits(network, along(x, direction, eps)), goal) > 0;
  for (let point = 0; point <= 1000; point++) {
    if (reached(point / 1000)) {
      let [low, high] = [Math.max(point - 1, 0) / 1000, point / 1000];
      while (high - low > 1e-4) {
        const eps = (low + high) / 2;
        if (reached(eps)) high = eps;
        else low = eps;
      }
      return high;
    }
    yield;
  }
  return null;
}

// The largest share of the way from x to the hit that need not be gone, by bisection, left out.
function pulled(network, x, hit, goal, halvings) {
  const way = hit.map((value, i) => value - x[i]);
  let [low, high] = [0, 1];
  for (let i = 0; i < halvings; i++) {
    const part = (low + high) / 2;
    if (margin(logits(network, along(x, way, part)), goal) > 0) high = part;
    else low = part;
  }
  return along(x, way, high);
}

// The classes but y, that of the nearest border first, were the logits linear: DeepFool's order.
// power: 1 for noise measured by its largest change, 2 for its length.
function byBorder(network, x, y, power) {
  const values = forward(network, x);
  const z = values.at(-1);
  const others = Array.from(z.keys()).filter((k) => k !== y).sort((a, b) => z[b] - z[a]);
  const distance = new Map();
  for (const to of others.slice(0, 9)) {
    const slope = slopeOfMargin(network, values, { to, from: y });
    const size = power === 1 ? slope.reduce((sum, s) => sum + Math.abs(s), 0) : length(slope);
    distance.set(to, (z[y] - z[to]) / size);
  }
  return [...distance.keys()].sort((a, b) => distance.get(a) - distance.get(b));
}

// Many steps: Frank-Wolfe steps inside a box that shrinks, as in method2_fgsm/frank_wolfe.py with
// one start.
function* frankWolfe(network, x, goal, steps) {
  let values = forward(network, x);
  let slope = slopeOfMargin(network, values, goal);
  const free = slope.map((s, i) => ((s > 0 ? x[i] < 1 : x[i] > 0) ? Math.abs(s) : 0));
  const away = -margin(values.at(-1), goal) / (free.reduce((a, b) => a + b, 0) || 1);
  let eps = 2 * Math.min(Math.max(away, 1e-4), 1);
  let [size, best] = [Infinity, null];
  let p = Float64Array.from(x);
  const m = new Float64Array(x.length);
  for (let i = 0; i < steps; i++) {
    const done = steps > 1 ? i / (steps - 1) : 0;
    const part = 0.01 ** done;
    const change = 0.1 * 0.01 ** done;
    values = forward(network, p);
    const hit = margin(values.at(-1), goal) > 0;
    const noise = largest(p.map((value, j) => value - x[j]));
    if (hit && noise < size) [size, best] = [noise, p];
    eps = hit ? Math.min(eps, size) * (1 - change) : eps * (1 + change);
    eps = Math.min(eps, size * (1 - 1e-4), 1);
    slope = slopeOfMargin(network, values, goal);
    const steepness = slope.reduce((sum, s) => sum + Math.abs(s), 0) || 1;
    p = p.map((value, j) => {
      m[j] = 0.95 * m[j] + (0.05 * slope[j]) / steepness;
      const [low, high] = [Math.max(x[j] - eps, 0), Math.min(x[j] + eps, 1)];
      const corner = m[j] > 0 ? high : m[j] < 0 ? low : value;
      return Math.min(Math.max(value + part * (corner - value), low), high);
    });
    yield;
  }
  if (best === null) return { size };
  best = pulled(network, x, best, goal, 10);
  return { size: largest(best.map((value, j) => value - x[j])), x: best };
}

// The root s of lead + Σ_j weights_j min(s, knots_j): null where there is none.
function root(lead, weights, knots) {
  if (lead >= 0) return 0;
  const order = Array.from(knots.keys()).sort((a, b) => knots[a] - knots[b]);
  let slope = weights.reduce((a, b) => a + b, 0);
  let [value, knot] = [lead, 0];
  for (const j of order) {
    const next = value + slope * (knots[j] - knot);
    if (next >= 0) return knot - value / slope;
    [value, knot] = [next, knots[j]];
    slope -= weights[j];
  }
  return null;
}

// How far pixel j can go along c, inside [0, 1].
function room(x, c) {
  return c.map((slope, j) => (slope > 0 ? 1 - x[j] : x[j]));
}

// The point of [0, 1] nearest to x at which the line lead + c · (p - x) is not below zero; where
// there is none, the corner that comes closest.
function nearestPoint(x, c, lead) {
  const knots = room(x, c).map((far, j) => (c[j] === 0 ? 0 : far / Math.abs(c[j])));
  const mu = root(lead, c.map((slope) => slope * slope), knots);
  return x.map((value, j) => clipped(value + (mu === null ? Math.sign(c[j]) : mu * c[j])));
}

function isLinear(network) {
  return !network.layers.some((layer) => layer.relu);
}

// The smallest eps, or the shortest noise, with which a linear classifier takes x for any other
// class than y: of the exact answers for each rival k, where z_k - z_y is a line, the smallest.
// lead: by how much z_k has to be ahead.
function* exact(network, x, y, norm, lead = 0) {
  const values = forward(network, x);
  const z = values.at(-1);
  let nearest = { size: Infinity };
  for (let to = 0; to < z.length; to++) {
    if (to === y) continue;
    const c = slopeOfMargin(network, values, { to, from: y });
    const missing = z[to] - z[y] - lead;
    let found;
    if (norm === "linf") {
      const eps = root(missing, c.map(Math.abs), room(x, c));
      found = eps === null ? null : along(x, c.map(Math.sign), eps);
      if (found && eps < nearest.size) nearest = { size: eps, x: found, to };
    } else {
      found = nearestPoint(x, c, missing);
      const r = found.map((value, j) => value - x[j]);
      const short = c.reduce((sum, slope, j) => sum + slope * r[j], missing);
      const size = length(r);
      if (short > -1e-9 && size < nearest.size) nearest = { size, x: found, to };
    }
    yield;
  }
  return nearest;
}

// Normally distributed numbers, the same each time: a linear congruential generator, Box and Muller.
function normal(seed) {
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

// The smallest |r|₂ from one start: the nearest point of an averaged linearisation, again and again,
// as in method1_noise_optimization/minimal.py.  hold: how much of the way from x a step keeps.
function* descend(network, x, goal, steps, hold) {
  const z = logits(network, x);
  const unit = Math.max(Math.max(...z) - Math.min(...z), 1e-12);
  let aim = 8e-5 * unit;
  let [size, best] = [Infinity, null];
  let p = Float64Array.from(x);
  const slope = new Float64Array(x.length);
  const random = normal(1);
  for (let i = 0; i < steps; i++) {
    const share = i / steps;
    const values = forward(network, p);
    const hit = margin(values.at(-1), goal) > 0;
    const temperature = unit * 0.25 * (8e-4 / 0.25) ** share;
    const [smooth, g] = smoothMargin(values.at(-1), goal, temperature);
    const far = length(p.map((value, j) => value - x[j]));
    if (hit && far < size) [size, best] = [far, p];
    aim = Math.min(Math.max(aim * (hit ? 0.8 : 1.3), 8e-5 * unit), 0.08 * unit);

    const weight = (10 / (i + 10)) * Math.min(2 * (1 - share), 1);
    gradient(network, values, g).forEach((s, j) => {
      slope[j] += weight * (s - slope[j]);
    });
    const held = x.map((value, j) => value + hold * (1 - share) * (p[j] - value));
    const lead = slope.reduce((sum, s, j) => sum + s * (held[j] - p[j]), smooth - aim);
    p = nearestPoint(held, slope, lead);
    const away = length(p.map((value, j) => value - x[j]));
    const noise = p.map(random);
    const blur = (0.5 * Math.max(1 - share / (2 / 3), 0) * away) / length(noise);
    p = along(p, noise, blur);
    yield;
  }
  if (best === null) return { size };
  return closer(network, x, goal, best);
}

// The margin with a smoothed maximum, and its gradient by the logits.
function smoothMargin(z, { to, from }, temperature) {
  const g = new Float64Array(z.length);
  g[to] = 1;
  if (from !== undefined) {
    g[from] = -1;
    return [z[to] - z[from], g];
  }
  const others = z.map((value, k) => (k === to ? -Infinity : value / temperature));
  const high = Math.max(...others);
  softmax(others).forEach((p, k) => {
    g[k] -= p;
  });
  const sum = others.reduce((total, value) => total + Math.exp(value - high), 0);
  return [z[to] - temperature * (high + Math.log(sum)), g];
}

// The hit moved towards x, and then to the nearest point of its own linearisation if that is a hit.
function closer(network, x, goal, hit) {
  let best = pulled(network, x, hit, goal, 8);
  let size = length(best.map((value, j) => value - x[j]));
  const values = forward(network, best);
  const z = values.at(-1);
  const c = slopeOfMargin(network, values, goal);
  const ahead = margin(z, goal) - ROUNDING * largest(z);
  const lead = c.reduce((sum, s, j) => sum + s * (x[j] - best[j]), ahead);
  const point = nearestPoint(x, c, lead);
  const far = length(point.map((value, j) => value - x[j]));
  if (far < size && margin(logits(network, point), goal) > 0) [size, best] = [far, point];
  return { size, x: best };
}

// Without a target: a few steps for each of nine rivals, then the rest for the best of them.
function* bestRival(network, x, y, power, search, few, many) {
  let best = { size: Infinity };
  const order = byBorder(network, x, y, power);
  let nearest = order[0];
  for (const to of order) {
    const found = yield* search({ to, from: y }, few);
    if (found.size < best.size) [best, nearest] = [found, to];
  }
  const found = yield* search({ to: nearest, from: y }, many);
  return found.size < best.size ? found : best;
}

// The smallest eps that many steps find, with so many gradients: {size, x}, size infinite where
// none is found.
function* smallestEps(network, x, goal, steps = 100) {
  const search = (rival, count) => frankWolfe(network, x, rival, count);
  if (goal.from === undefined) return yield* search(goal, steps);
  const few = Math.floor(0.03 * steps);
  const rest = steps - few * Math.min(9, network.classes - 1);
  return yield* bestRival(network, x, goal.from, 1, search, few, rest);
}

// The smallest |r|₂ that one start finds.
function* smallestNoise(network, x, goal, steps = 120) {
  if (goal.from === undefined) return yield* descend(network, x, goal, steps, 0);
  const search = (rival, count) => descend(network, x, rival, count, 1);
  return yield* bestRival(network, x, goal.from, 2, search, Math.floor(steps / 6), steps);
}
