"""What is trained on bounds is proven to some part, and no attack breaks what is proven."""

import numpy as np
import pytest

from common import data
from common.command import Failure
from common.networks import mnist
from method2_fgsm import adversarial_training, certified
from method2_fgsm.fgsm import fgsm
from method2_fgsm.pgd import pgd
from method2_fgsm.robust import bounds, certified_training, ensemble

EPS = 0.03


@pytest.fixture(scope="module")
def certified_mlp(own_folders):
    """The MLP after four short epochs on bounds, as the script trains and saves it."""
    real, count = data.load, {"train": 8000, "test": 300}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda split: [part[: count[split]] for part in real(split)])
        settings = f"--attack bounds --model mlp --eps {EPS} --epochs 4 --learning-rate 0.005"
        adversarial_training.main(settings.split())
    return mnist.load("mlp_certified")


def test_much_is_proven_of_what_was_trained_on_bounds_and_nothing_breaks_it(
    certified_mlp, trained, monkeypatch
):
    x, y = (part[:300] for part in data.load("test"))
    share, plain = (bounds.proven(m, x, y, EPS).mean() for m in (certified_mlp, trained["mlp"]))
    assert share > 0.6
    assert plain < 0.1
    rows = np.flatnonzero(bounds.proven(certified_mlp, x, y, EPS))[:60]
    x, y = x[rows], y[rows]
    for name in ("STEPS", "SMALLEST_STEPS", "QUERIES"):
        monkeypatch.setattr(ensemble, name, 20)
    for kind in ensemble.attacks(trained["softmax"]):
        for attack in kind.values():
            assert ensemble.withstood(certified_mlp, x, y, EPS, attack).all()
    x_adv = pgd(certified_mlp, x, y, EPS, steps=200, step_size=EPS / 50, loss="margin")
    np.testing.assert_array_equal(mnist.classify(certified_mlp, x_adv), y)
    # Farther out they do break it: the test sees what attacks do.
    assert (mnist.classify(certified_mlp, fgsm(certified_mlp, x, y, 0.2)) != y).any()


def test_the_plain_network_is_the_normalised_one():
    """Folding changes nothing: statistics, scale and offset far from 1 and 0 included."""
    rng = np.random.default_rng(0)
    for name in ("mlp_certified", "strided_certified"):
        model = mnist.build(name)
        trained = certified_training.normalised(model)
        trained.set_weights([w + rng.uniform(0, 0.05, w.shape) for w in trained.get_weights()])
        certified_training.fold(trained, model)
        x = rng.random((5, 28, 28), np.float32)
        np.testing.assert_allclose(
            mnist.predict(model, x), mnist.predict(trained, x), rtol=1e-4, atol=1e-4
        )


def test_the_loss_bounds_the_loss_of_every_image_in_the_box():
    import tensorflow as tf

    trained = certified_training.normalised(mnist.build("mlp_certified"))
    x, y = (part[:100] for part in data.load("test"))
    losses = [
        float(certified_training.bounds_loss(trained, x, y, eps, 0.0, 1e-5)[0])
        for eps in (0.0, 0.01, 0.1)
    ]
    assert losses == sorted(losses)
    size = sum(np.abs(w).sum() for w in trained.get_weights() if w.ndim > 1)
    z = trained(x, training=True)
    entropy = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
    # Without a box, the bounds are the logits less that of y, but for what float32 may round.
    assert 0 <= losses[0] - (entropy + 1e-5 * size) < 0.1


def test_an_attack_that_breaks_a_proof_ends_the_script():
    largest, steps = np.array([0.12, np.nan]), np.arange(len(certified.EPS))[:, np.newaxis]
    _, left = certified.both_edges(largest, steps < [3, 0])
    assert left[:4].tolist() == [50, 50, 50, 0]
    with pytest.raises(Failure, match=r"image 0: an attack succeeds at eps 0\.1, though 0\.12"):
        certified.both_edges(largest, steps < [2, 0])


def test_both_edges_are_drawn_and_saved(certified_mlp, trained, monkeypatch, tmp_path):
    networks = dict.fromkeys(("softmax", "strided_certified"), EPS)
    monkeypatch.setattr(certified, "NETWORKS", networks)
    monkeypatch.setattr(certified, "COLOURS", certified.COLOURS[:2])
    monkeypatch.setattr(certified, "PROVEN_EPS", tmp_path / "proven.npz")
    monkeypatch.setattr(certified, "EPS", np.array([0, 0.03, 0.2]))
    models = trained | {"strided_certified": certified_mlp}
    monkeypatch.setattr(mnist, "load", lambda name: models[name])
    for name in ("STEPS", "SMALLEST_STEPS", "QUERIES", "STARTS"):
        monkeypatch.setattr(ensemble, name, 2)
    x, y = (part[:100] for part in data.load("test"))
    monkeypatch.setattr(data, "load", lambda split: (x, y))
    figure = tmp_path / "c.png"
    written = certified.main(["--count", "10", "--output", str(figure)])
    assert written == [tmp_path / "proven.npz", figure]
    saved = np.load(written[0], allow_pickle=False)
    for name in networks:
        share = bounds.proven(mnist.load(name), x, y, EPS).mean()
        assert abs((saved[name] >= EPS).mean() - share) < 0.02
