"""Noise after which the network is as sure as asked, against exact optima of linear networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from common import check_results, generate_5k, results
from common.command import Failure
from common.networks import mnist
from common.run import photo_rows
from common.search import margins
from method1_noise_optimization import attack, attack_imnet, attack_mnist
from method1_noise_optimization.attack import find_noise, reached

CLASSES = 10


def linear(rng, shape=(4, 4), scale=2.0, classes=CLASSES):
    """A softmax regression with random weights, W (d, classes) and b besides."""
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes)]
    )
    W, b = rng.normal(0, scale, (int(np.prod(shape)), classes)), rng.normal(0, 0.5, classes)
    model.set_weights([W, b])
    return model, *(part.astype(np.float32).astype(np.float64) for part in (W, b))


def log_odds(z, t):
    return z[t] - logsumexp(np.delete(z, t))


def optimum(x, W, b, t, confidence):
    """|r|_2 of the nearest point of the cube at which p_t > confidence and t is ahead: SLSQP."""
    needed = np.log(confidence / (1 - confidence))

    def slack(p):
        z = p @ W + b
        return np.append(z[t] - np.delete(z, t), log_odds(z, t) - needed)

    best = np.inf
    for start in (x, np.clip(x + W[:, t], 0, 1)):
        found = minimize(
            lambda p: ((p - x) ** 2).sum(),
            start,
            jac=lambda p: 2 * (p - x),
            bounds=[(0, 1)] * len(x),
            constraints={"type": "ineq", "fun": slack},
            options={"maxiter": 500, "ftol": 1e-12},
        )
        if found.success and slack(found.x).min() > -1e-6:
            best = min(best, found.fun**0.5)
    return best


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(5)
    model, W, b = linear(rng)
    x = rng.random((7, 4, 4)).astype(np.float32)
    return model, W, b, x, mnist.classify(model, x)


def probabilities(x_adv, W, b):
    return softmax(x_adv.reshape(len(x_adv), -1).astype(np.float64) @ W + b, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("confidence", [0.3, 0.9])
def test_minimal_finds_the_nearest_point_that_is_sure_enough(task, confidence):
    model, W, b, x, y = task
    rows, y_target = np.arange(len(x)), (y + 1 + np.arange(len(x))) % CLASSES
    flat = x.reshape(len(x), -1).astype(np.float64)
    exact = [[optimum(p, W, b, t, confidence) for t in range(CLASSES)] for p in flat]
    exact = np.array(exact)
    exact[rows, y] = np.inf
    settings = {"method": "minimal", "starts": attack.STARTS, "confidence": confidence}

    best, noise = exact[rows, y_target], find_noise(model, x, y_target, **settings)
    hit = reached(model, x, noise, y_target, confidence=confidence)
    np.testing.assert_array_equal(hit, np.isfinite(best))
    assert hit.sum() >= 5
    np.testing.assert_allclose(attack.sizes(noise)[hit], best[hit], rtol=2e-3)
    assert (probabilities(x + noise, W, b)[rows, y_target] > confidence)[hit].all()

    best, noise = exact.min(axis=1), find_noise(model, x, y, targeted=False, **settings)
    hit = reached(model, x, noise, y, targeted=False, confidence=confidence)
    np.testing.assert_array_equal(hit, np.isfinite(best))
    assert (probabilities(x + noise, W, b).max(axis=1) > confidence)[hit].all()
    # Of all classes the best is not always looked at long enough.
    share = attack.sizes(noise)[hit] / best[hit]
    assert share.min() > 1 - 1e-5
    assert (share < 1.002).sum() >= hit.sum() - 1


@pytest.mark.parametrize("method", ["sgd", "lbfgs"])
def test_the_other_methods_stop_where_the_target_is_sure_enough(task, method):
    model, W, b, x, y = task
    y_target, confidence = (y + 1) % CLASSES, 0.9
    flat = x.reshape(len(x), -1).astype(np.float64)
    best = [optimum(p, W, b, t, confidence) for p, t in zip(flat, y_target, strict=True)]
    noise = find_noise(model, x, y_target, method=method, confidence=confidence)
    hit = reached(model, x, noise, y_target, confidence=confidence)
    p = probabilities(x + noise, W, b)[np.arange(len(x)), y_target]
    share = attack.sizes(noise) / best
    assert (p[hit] > confidence).all()
    assert (p < 0.92).all()
    assert share.min() > 1 - 1e-5
    assert share.max() < {"sgd": 1.1, "lbfgs": 1.002}[method]


def test_what_is_the_nearest_of_digits_is_proven(trained, few):
    """The log odds of a linear network are concave: where they are linearised they are not below,
    and so the projection onto that half space is nearer than any point that is sure enough."""
    x, y_target = few(trained["softmax"], 10)
    W, b = (part.astype(np.float64) for part in trained["softmax"].get_weights())
    noise = find_noise(trained["softmax"], x, y_target, method="minimal", starts=8, confidence=0.9)
    assert reached(trained["softmax"], x, noise, y_target, confidence=0.9).all()
    for image, r, t in zip(x, noise, y_target, strict=True):
        x0 = image.ravel().astype(np.float64)
        p = x0 + r.ravel()
        z = p @ W + b
        weights = softmax(np.where(np.arange(CLASSES) == t, -np.inf, z))
        G = W[:, t] - W @ weights
        needed = np.log(9) - log_odds(z, t) + G @ p
        low, high = 0.0, 1e3
        for _ in range(200):  # the multiplier of the half space
            middle = (low + high) / 2
            nearest = np.clip(x0 + middle * G, 0, 1)
            low, high = (middle, high) if G @ nearest < needed else (low, middle)
        bound = np.linalg.norm(nearest - x0)
        assert bound * (1 - 1e-5) <= np.linalg.norm(r) <= (1 + 1e-4) * bound


def test_a_class_is_ahead_exactly_where_it_is_the_largest_and_above_the_confidence():
    """And by its log odds, however far apart the logits are."""
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(400, 5)) * 10 ** rng.uniform(-2, 2, (400, 1))).astype(np.float32)
    identity = keras.Sequential([keras.Input((5,)), keras.layers.Activation("linear")])
    p = softmax(z.astype(np.float64), axis=1)
    odds = np.array([[log_odds(row, t) for t in range(5)] for row in z.astype(np.float64)])
    for confidence in (0.01, 0.3, 0.5, 0.9, 1 - 1e-9):
        sure = margins.sure(identity, confidence)(tf.constant(z), training=False).numpy()
        known = np.abs(p.max(axis=1) - confidence) > 1e-6
        expected = np.where(p.max(axis=1) > confidence, z.argmax(axis=1), 5)
        np.testing.assert_array_equal(sure.argmax(axis=1)[known], expected[known])
        ahead = sure[:, :5] - sure[:, 5:]
        needed = np.log(confidence / (1 - confidence))
        np.testing.assert_allclose(ahead, odds - needed, rtol=1e-5, atol=1e-4)


def test_gradients_are_finite_where_a_probability_rounds_to_1():
    identity = keras.Sequential([keras.Input((3,)), keras.layers.Activation("linear")])
    z = tf.constant([[300.0, 0, 0], [0, 0, 0], [1e4, -1e4, 1e4]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        sure = margins.sure(identity, 0.9)(z, training=False)
    assert np.isfinite(sure).all()
    assert np.isfinite(tape.gradient(sure, z)).all()


def test_what_cannot_be_that_sure_is_not_reached(task):
    model, _, _, x, y = task
    settings = {"method": "minimal", "confidence": 1 - 1e-15}
    for targeted, goal in ((True, (y + 1) % CLASSES), (False, y)):
        noise = find_noise(model, x, goal, targeted=targeted, max_steps=5, **settings)
        hit = reached(model, x, noise, goal, targeted=targeted, confidence=1 - 1e-15)
        assert not hit.any()
        assert targeted or not noise.any()


@pytest.mark.parametrize("confidence", [0, 1, 1.5, -0.1, np.nan, "0.5", [0.5, 0.6]])
def test_a_confidence_is_above_0_and_below_1(task, confidence):
    model, _, _, x, y = task
    with pytest.raises(ValueError, match="confidence must be"):
        find_noise(model, x, y, confidence=confidence)


@pytest.mark.parametrize("target", ["random", "any"])
def test_results_say_how_sure_and_are_checked(trained, tmp_path, capsys, target):
    path, small = tmp_path / "r.npz", ["--limit", "12", "--starts", "1"]
    generate_5k.main(["--count", "20"])
    options = [*small, "--model", "softmax", "--method", "minimal", "--target", target]
    attack_mnist.main([*options, "--confidence", "0.95", "--output", str(path)])
    said, found = capsys.readouterr().out, results.load(path)
    assert "probability above 0.95" in said
    W, b = trained["softmax"].get_weights()
    p = probabilities(found["xs"] + found["noises"], W.astype(np.float64), b).max(axis=1)
    np.testing.assert_allclose(found["confidences_adversarial"], p, rtol=1e-5)
    assert results.succeeded(found).all()
    assert (p > 0.95).all()
    assert not check_results.violations(found, trained["softmax"])
    found["confidences_adversarial"][1] -= 0.01
    assert "not as sure in 1 of" in check_results.violations(found, trained["softmax"])[0]
    found["config"]["confidence"] = 0.9999
    assert not results.succeeded(found).any()


@pytest.mark.parametrize("confidence", ["0.9", 2, None])
def test_a_file_that_asks_for_confidence_says_how_sure_the_network_is(tmp_path, confidence):
    x, y = np.full((2, 4, 4), 0.5, np.float32), np.array([0, 1])
    sure = {} if confidence is None else {"confidences_adversarial": np.ones(2)}
    arrays = {"xs": x, "noises": 0 * x, "y_trues": y, "y_preds": y, "y_preds_adversarial": y}
    config = {"confidence": confidence or 0.9}
    with pytest.raises(ValueError, match="confidence"):
        results.save(tmp_path / "r.npz", config=config, **arrays, **sure)


@pytest.mark.slow
def test_photographs_count_where_the_network_is_sure_enough(tmp_path, capsys):
    """A network that tells which third is bright, by logits that are 14 apart at most."""
    rng, folder, csv = np.random.default_rng(0), tmp_path / "p", tmp_path / "r.csv"
    folder.mkdir()
    for name, bright in enumerate((1, 2, 1)):
        image = rng.integers(0, 120, (8, 6, 3), np.uint8)
        image[:, 2 * bright : 2 * bright + 2] += 100
        Image.fromarray(image).save(folder / f"{name}.png")
    network, _, _ = linear(rng, (8, 6, 3), classes=3)
    third = np.eye(3).repeat(2, axis=0)[:, np.newaxis]
    weights = 0.3 * np.broadcast_to(third, (8, 6, 3, 3)).reshape(144, 3)
    network.set_weights([weights, np.zeros(3)])
    network.save(tmp_path / "n.keras")
    own = ["--model", str(tmp_path / "n.keras"), "--pixels", "0..1", "--images", str(folder)]
    own += ["--output", str(csv), "--save-images", str(tmp_path / "s")]
    for confidence, counted in (("0.9", "1"), ("0.999999999", "0")):
        for target in ("0", "any"):
            attack_imnet.main([*own, "--target", target, "--confidence", confidence])
            rows = list(photo_rows.read(csv))
            assert [row["fools"] for row in rows] == [counted] * 3
            assert [row["fools_8bit"] for row in rows] == [counted] * 3
            found = results.load(csv.with_suffix(".npz"))
            assert (results.succeeded(found) == int(counted)).all()
            if counted == "1":
                assert all(0.9 < float(row["confidence_adversarial"]) < 0.91 for row in rows)
                assert all(0.9 < float(row["confidence_8bit"]) < 0.91 for row in rows)
            elif target == "any":
                assert {row["changed_8bit"] for row in rows} == {"0"}
    with pytest.raises(Failure, match="confidence was 0"):
        attack_imnet.main([*own, "--target", "any", "--resume"])


def test_a_file_with_one_sigmoid_is_attacked_and_checked(tmp_path, monkeypatch, capsys):
    """Two classes of which one is the label; the network of the file gives a probability."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.random((20, 4, 4)).astype(np.float32)
    dense = keras.layers.Dense(1, activation="sigmoid")
    network = keras.Sequential([keras.Input((4, 4)), keras.layers.Flatten(), dense])
    w = rng.normal(size=(16, 1))
    dense.set_weights([w, -w.sum(axis=0) / 2])
    network.save("n.keras")
    np.savez("s.npz", images=x, labels=((x.reshape(20, 16) - 0.5) @ w > 0).astype(int))
    own = ["--model", "n.keras", "--samples", "s.npz", "--pixels", "0..1", "--output", "r.npz"]
    for target in ("any", "random"):
        how = ["--method", "minimal", "--starts", "1", "--target", target, "--confidence", "0.7"]
        attack_mnist.main([*own, *how])
        found = results.load(tmp_path / "r.npz")
        assert len(found["xs"]) == 20
        assert results.succeeded(found).all()
        p = network.predict(found["xs"] + found["noises"], verbose=0)[:, 0]
        p = np.where(found["y_trues"] == 1, 1 - p, p)
        np.testing.assert_allclose(found["confidences_adversarial"], p, rtol=1e-5)
        # For one straight border the smallest noise is just enough.
        assert (p > 0.7).all()
        assert (p < 0.701).all()
        assert check_results.main(["r.npz", "--model", "n.keras"]) == []
    assert "PASS" in capsys.readouterr().out
