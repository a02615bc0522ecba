"""The smallest L2 noise we can find: exact projections onto averaged linearisations.

Wanted is the point x' of the box nearest to the image x that is classified as its target t:

    minimise |x' - x|²   subject to   g_k(x') = z_t(x') - z_k(x') ≥ 0 for the nine k ≠ t,
                                      0 ≤ x' ≤ 1                          (logits z)

Were the leads g_k linear, this would be a small quadratic programme, which
`common/box_projection.py` solves exactly.  So, as in sequential quadratic programming (and in
DeepFool, Moosavi-Dezfooli et al. 2016, which does it for the nearest class and without the box),
linearise at the point p reached so far, solve, go to the solution, and repeat:

    p ← the point of the box nearest to x at which   g_k(p) + G_k·(x' - p) ≥ aim   for all k

For a linear classifier that is the exact answer as soon as each slope has been met.  In a network
of ReLUs and maxima the best point lies where several linear pieces meet, and the gradient ∇g_k at
p jumps from piece to piece, for ever.  The remedy is that of stochastic approximation (Robbins &
Monro 1951): the slope G_k is a running average of the gradients met on the way, with weights that
fall like one over their number, so that it settles at the combination of the neighbouring pieces
under which p is optimal.  A step costs one gradient, that of the lead over the strongest
competitor at p; the other slopes wait for the steps at which their class is the strongest.
(Decoupling direction and norm with a decaying step, Rony et al. 2019, averages the gradients
too, but then rescales and clips, which does not give the nearest point of the box.)

`aim` is above zero by what the linearisation misses: it grows while an image is missed and
shrinks while it is hit.  The smallest noise that was a hit is kept and, at the end, pulled
towards x along the straight line as far as it stays one.
"""

import numpy as np
import tensorflow as tf

from common.box_projection import project
from common.compiled import compiled
from method1_noise_optimization.leads import LEAD, lead, leads, logits

STEPS_A_CALL = 10
# Newton steps of a projection: it starts from the multipliers of the one before.
NEWTON_STEPS = 2
# The weight of a new gradient beside m earlier ones of its class is WINDOW / (m + WINDOW), and
# over the second half of the steps it falls to zero besides.
WINDOW = 10.0
# The lead aimed at, in logits: its range, and its factors after a miss and after a hit.
AIM_SMALLEST, AIM_LARGEST = 1e-3, 1.0
AIM_MISSED, AIM_HIT = 1.3, 0.8
# An image is finished after CALM steps that were hits, moved no further than STILL (L2, pixel
# units) and met the very slope they went by: the classifier is linear there.
STILL, CALM = 1e-4, 3


def find(model, x, y_target, *, max_steps, progress):
    """The nearest hits for one batch and how many steps each took.

    x (n, d) float32 in [0, 1], y_target (n,) int64.  Returns x_adv (n, d) float32 and steps
    (n,) int64; where no point tried reached the target, x_adv is the one that would have come next.
    """
    n, classes = len(x), model.output_shape[-1]
    best, steps = x.copy(), np.zeros(n, np.int64)
    distance = np.full(n, np.inf, np.float32)
    rows = np.arange(n)
    state = (
        tf.constant(x),
        tf.zeros((n, classes, x.shape[1])),
        tf.zeros((n, classes)),
        tf.zeros((n, classes)),
        tf.fill((n,), AIM_SMALLEST),
        tf.constant(x),
        tf.constant(distance),
        tf.zeros((n,), tf.int32),
    )
    while len(rows):
        first = steps[rows[0]]
        last = min(first + STEPS_A_CALL, max_steps)
        done = tf.range(first, last, dtype=tf.float32) / max_steps
        state = _steps(model, x[rows], y_target[rows], state, done)
        steps[rows] = last
        finished = (state[-1].numpy() >= CALM) | (last == max_steps)
        # To repack the batch for a few costs more than to take them along.
        if finished.mean() > 1 / 4:
            left, kept = rows[finished], np.flatnonzero(~finished)
            point, hit, size = (state[i].numpy()[finished] for i in (0, 5, 6))
            found = np.isfinite(size)
            best[left] = np.where(found[:, np.newaxis], hit, point)
            distance[left] = size
            rows, state = rows[kept], tuple(tf.gather(part, kept) for part in state)
            progress(len(left))
    found = np.flatnonzero(np.isfinite(distance))
    if len(found):
        best[found] = _pull(model, x[found], y_target[found], best[found])
    return best, steps


@compiled
def _steps(model, x, target, state, done):
    """One step for each entry of `done`, the share of all steps that lie behind.

    The state is a tuple, in this order:

    p (n, d)                 the point to look at next
    G (n, classes, d)        the averaged slopes, and seen (n, classes), the gradients in each
    mu (n, classes)          the multipliers of the last projection
    aim (n,)                 the lead aimed at
    best (n, d), size (n,)   the nearest hit so far and its distance from x, at first infinite
    calm (n,)                steps since anything changed
    """
    p, G, seen, mu, aim, best, size, calm = state
    rows = tf.range(tf.shape(x, out_type=tf.int64)[0])
    # The target's own row never binds; nor does any class whose gradient was not met yet.
    own = tf.one_hot(target, G.shape[1], on_value=True, off_value=False)
    for share in done:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(p)
            g = leads(logits(model, p), target)
            worst = tf.reduce_min(g, axis=1)
            # Of the competitors that are about as strong, the one whose slope is known least.
            strongest = g <= worst[:, tf.newaxis] + aim[:, tf.newaxis]
            k = tf.argmin(tf.where(strongest, seen, seen.dtype.max), axis=1)
            competitor = tf.stack([rows, k], axis=1)
            g_k = tf.gather_nd(g, competitor)
        gradient = tape.gradient(g_k, p)

        hit = worst > LEAD
        distance = tf.norm(p - x, axis=1)
        nearer = hit & (distance < size)
        best, size = tf.where(nearer[:, tf.newaxis], p, best), tf.where(nearer, distance, size)
        aim = tf.clip_by_value(aim * tf.where(hit, AIM_HIT, AIM_MISSED), AIM_SMALLEST, AIM_LARGEST)

        met = tf.gather_nd(seen, competitor)
        slope = tf.gather_nd(G, competitor)
        news = gradient - slope
        weight = WINDOW / (met + WINDOW) * tf.minimum(2 * (1 - share), 1)
        slope += tf.where(met == 0, 1.0, weight)[:, tf.newaxis] * news
        G = tf.tensor_scatter_nd_update(G, competitor, slope)
        seen = tf.tensor_scatter_nd_update(seen, competitor, met + 1)

        b = aim[:, tf.newaxis] - g + tf.linalg.matvec(G, p)
        b = tf.where(own | (seen == 0), -1.0, b)
        new_p, new_mu, _ = project(x, G, b, mu, NEWTON_STEPS)
        # A relaxed trace of `project` forgets the shapes that the loop has to keep.
        new_p, mu = tf.ensure_shape(new_p, p.shape), tf.ensure_shape(new_mu, mu.shape)
        straight = tf.norm(news, axis=1) < 1e-3 * tf.norm(slope, axis=1)
        quiet = hit & straight & (tf.norm(new_p - p, axis=1) < STILL)
        calm = tf.where(quiet, calm + 1, 0)
        p = new_p
    return p, G, seen, mu, aim, best, size, calm


@compiled
def _pull(model, x, target, x_adv):
    """The hits x_adv (n, d), moved towards x along the straight line while they stay hits."""
    low, high = tf.zeros_like(x[:, 0]), tf.ones_like(x[:, 0])
    for _ in tf.range(8):
        middle = (low + high) / 2
        hit = lead(logits(model, x + middle[:, tf.newaxis] * (x_adv - x)), target) > LEAD
        low, high = tf.where(hit, low, middle), tf.where(hit, middle, high)
    return x + high[:, tf.newaxis] * (x_adv - x)
