"""The smallest L2 noise we can find: exact projections onto an averaged linearisation.

The point x' of the box nearest to the image x that is classified as its target t solves

    minimise |x' - x|²   subject to   g(x') = z_t(x') - max_{k ≠ t} z_k(x') ≥ 0,   0 ≤ x' ≤ 1

with logits z.  Were the margin g linear, `common/search/box_projection.py` would give the answer.
So linearise at the point p reached so far, go to the solution, and repeat, as in sequential
quadratic programming and in DeepFool (Moosavi-Dezfooli et al. 2016):

    p ← the point of the box nearest to x at which   g(p) + G·(x' - p) ≥ aim

G is a running average of the gradients, g's maximum is smoothed, p gets noise that fades, and
`aim` is a little above zero.  Without a target, and in some of the starts, the projection is of a
point between x and p that moves to x.  The README of this folder says why.  For a linear
classifier the answer is exact.

A step costs one gradient.  Memory does not grow with the number of classes.
"""

import itertools

import numpy as np
import tensorflow as tf

from common.search import nearest_class
from common.search.box_projection import project, project_onto_one
from common.search.compiled import compiled
from common.search.margins import is_hit, least, logits, margins, pull, spread

# All that is compared with logits is a share of their spread at the image x, so that the noise is
# that of the image and not of the units of its logits.
# The last temperature of all, and the share of the steps after which there is no noise.
COLDEST, CLEAR = 8e-4, 2 / 3
# Towards a target, of the starts in turn: whether it begins at x, or else at the nearest hit, its
# first temperature, the first length of its noise beside |p - x|, and hold (`_descend`).
STARTS = (
    (True, 0.25, 0.5, 0.0),
    (True, 0.75, 2.0, 1.0),
    (True, 0.08, 1.0, 0.0),
    (False, 0.08, 0.5, 1.0),
    (False, 0.08, 0.5, 0.0),
    (False, 0.08, 0.5, 1.0),
    (True, 2.5, 0.5, 0.0),
    (False, 0.08, 0.5, 1.0),
)
# The weight of a new gradient beside m earlier ones is WINDOW / (m + WINDOW), and over the second
# half of the steps it falls to zero besides.
WINDOW = 10.0
# The margin aimed at: its range, and its factors after a miss and after a hit.
AIM_SMALLEST, AIM_LARGEST = 8e-5, 0.08
AIM_MISSED, AIM_HIT = 1.3, 0.8
# Starts whose distances differ by less than this part agree, and when this many found no nearer
# hit than an earlier start did, but agree with it, the image is done.
ALIKE, AGREED = 1e-4, 2
# Without a target, of each round: the share of the steps that each rival gets, no fewer than
# FEWEST, or with 1 the best rival alone gets all; then as in STARTS.  The first two are one start;
# the last three, in turn, are a start each.
ROUNDS = (
    (1 / 6, True, 0.25, 0.5, 1.0),
    (1, True, 0.25, 0.5, 1.0),
    (0.31, True, 0.75, 1.0, 1.0),
    (1, False, 0.08, 0.5, 1.0),
    (1, False, 0.08, 0.5, 0.0),
)
FEWEST = 10
# Newton steps of a projection that starts from the multiplier of the one before.
NEWTON_STEPS = 2
# Competitors of the last projection, and its Newton steps.
COMPETITORS, LAST_STEPS = 9, 20


def find(model, x, y_target, max_steps, progress, starts):
    """The nearest hits for one batch and how many gradients each took.

    x (n, d) float32 in [0, 1], y_target (n,) int64; max_steps gradients for each of at most
    `starts` starts.  Returns x_adv (n, d) float32 and steps (n,) int64; where no point tried
    reached the target, x_adv is the one that would have come next.
    """
    x_adv, steps = x.copy(), np.zeros(len(x), np.int64)
    size, agreed = np.full(len(x), np.inf, np.float32), np.zeros(len(x), np.int64)
    rows = np.arange(len(x))
    turns = itertools.islice(itertools.cycle(STARTS), starts)
    for start, (from_x, *settings) in enumerate(turns):
        if not len(rows):
            break
        here = x[rows], (x if from_x else x_adv)[rows], y_target[rows]
        found = _descend(model, *here, start, max_steps, *settings)
        point, near, distance = (part.numpy() for part in found)
        steps[rows] += max_steps
        before = size[rows]
        missed, nearer = np.isinf(before) & np.isinf(distance), distance < before
        x_adv[rows[missed]] = point[missed]
        x_adv[rows[nearer]], size[rows[nearer]] = near[nearer], distance[nearer]
        if from_x:
            agreed[rows[distance < (1 - ALIKE) * before]] = 0
            agreed[rows] += np.isfinite(before) & (distance <= (1 + ALIKE) * before)
        rows = rows[agreed[rows] < AGREED]
        progress(len(x) / starts)
    return x_adv, steps


def find_nearest(model, x, y, max_steps, progress, starts):
    """The nearest points of any class but the labels y, (n,) or (n, m), or x where none was found,
    and how many gradients each took: the same number for every image.

    One candidate (common/search/nearest_class.py) is looked for at a time, as ROUNDS say; each
    start takes at most three times max_steps, and the order of the candidates one gradient each.
    """
    candidates = min(nearest_class.MOST, model.output_shape[-1] - y[0].size)
    turns = [*ROUNDS[:2], *itertools.islice(itertools.cycle(ROUNDS[2:]), starts - 1)]

    def split(share):
        each = max(min(FEWEST, max_steps), int(share * max_steps))
        affordable = max(1, int(nearest_class.MOST * share * max_steps) // each)
        return (1, max_steps) if share == 1 else (min(affordable, candidates), each)

    rounds = [split(share) for share, *_ in turns]
    gradients = candidates + sum(count * steps for count, steps in rounds)

    def search(goal, best, number, steps):
        _, from_x, *settings = turns[number]
        origin = x if from_x else best.reshape(x.shape)
        _, near, distance = _descend(model, x, origin, goal, max(number - 1, 0), steps, *settings)
        progress(len(x) * steps / gradients)
        return near.numpy().reshape(best.shape), distance.numpy()

    images = x.reshape(-1, *model.input_shape[1:])
    best, _ = nearest_class.nearest(model, images, y, search, rounds, norm=2)
    return best.reshape(x.shape), np.full(len(x), gradients)


@compiled
def _descend(model, x, p, target, start, steps, warmest, blur, hold):
    """One start, at p: the last point (n, d), the nearest hit (n, d), and its distance, or
    infinity.

    hold: how much of p's way from x a step keeps beside what the linearisation asks for, falling to
    nothing in the end.  Where units saturate, the slopes forget the pixels that have done their
    work, and without it they go back at once.
    """
    G, best = tf.zeros_like(x), x
    mu = tf.zeros_like(x[:, :1])
    unit = spread(logits(model, x))
    aim = AIM_SMALLEST * unit
    size = tf.fill(tf.shape(x)[:1], np.float32(np.inf))
    for i in tf.range(steps):
        share = tf.cast(i, tf.float32) / tf.cast(steps, tf.float32)
        temperature = unit * warmest * (COLDEST / warmest) ** share
        hit, smooth, gradient = hit_and_slope(model, p, target, temperature)

        distance = tf.norm(p - x, axis=1)
        nearer = hit & (distance < size)
        best, size = tf.where(nearer[:, tf.newaxis], p, best), tf.where(nearer, distance, size)
        aim *= tf.where(hit, AIM_HIT, AIM_MISSED)
        aim = tf.clip_by_value(aim, AIM_SMALLEST * unit, AIM_LARGEST * unit)

        weight = WINDOW / (tf.cast(i, tf.float32) + WINDOW) * tf.minimum(2 * (1 - share), 1)
        G += weight * (gradient - G)
        b = (aim - smooth)[:, tf.newaxis] + tf.reduce_sum(G * p, axis=1, keepdims=True)
        held = x + hold * (1 - share) * (p - x)
        p, mu = project_onto_one(held, G, b, mu, NEWTON_STEPS)
        # The same noise for all images, so that none depends on its place in the batch.
        noise = tf.random.stateless_normal(tf.shape(x)[1:], seed=tf.stack([start, i]))
        length = blur * tf.maximum(1 - share / CLEAR, 0) * tf.norm(p - x, axis=1, keepdims=True)
        p = tf.clip_by_value(p + length * noise / tf.norm(noise), 0, 1)
    best = _improve(model, x, target, best)
    return p, best, tf.where(size < np.inf, tf.norm(best - x, axis=1), size)


def hit_and_slope(model, p, target, temperature):
    """Whether p is a hit, the margin smoothed by temperatures (n,), and its gradient at p."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(p)
        z = logits(model, p)
        g = margins(z, target)
        smooth = -temperature * tf.reduce_logsumexp(-g / temperature[:, tf.newaxis], axis=1)
    return tf.reduce_min(g, axis=1) > least(model, z), smooth, tape.gradient(smooth, p)


def _improve(model, x, target, x_adv):
    """The hits x_adv (n, d), or nearer ones: pulled, and projected onto each strong competitor."""
    _, x_adv = pull(lambda p: is_hit(model, p, target), x, x_adv, 8)
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
        tape.watch(x_adv)
        z = logits(model, x_adv)
        g = margins(z, target)
        count = min(COMPETITORS, max(g.shape[1] - 1, 1))
        g = -tf.math.top_k(-g, count)[0]
        each = [g[:, k] for k in range(count)]
    G = tf.stack([tape.gradient(g_k, x_adv) for g_k in each], axis=1)
    b = 2 * least(model, z)[:, tf.newaxis] - g + tf.linalg.matvec(G, x_adv)
    p, _, _ = project(x, G, b, tf.zeros_like(b), LAST_STEPS)
    nearer = tf.norm(p - x, axis=1) < tf.norm(x_adv - x, axis=1)
    nearer &= is_hit(model, p, target)
    return tf.where(nearer[:, tf.newaxis], p, x_adv)
