"""What is run twice with one seed leaves the same bytes; another seed chooses otherwise.

(Of attacks on one core, two and a cluster, tests/test_engine.py says so.)
"""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from common import data, files, results
from common.networks import mnist, training
from method1_noise_optimization import compare_methods
from method2_fgsm.robust import plain_and_adversarial

METHOD1 = "method1_noise_optimization"


@pytest.fixture(scope="module", autouse=True)
def few_digits(trained, tmp_path_factory):
    """Thirty digits as samples, and a small test set for the scripts that take all of it."""
    real = data.load
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("samples") / "samples.npz"
        images, labels, indices = data.draw_samples(30, 0)
        np.savez(path, images=images, labels=labels, indices=indices)
        patch.setattr(data, "SAMPLES", path)
        patch.setattr(data, "load", lambda split: [part[:600] for part in real(split)])
        patch.setattr(plain_and_adversarial, "PGD_STEPS", 3)
        ways = {way: compare_methods.WAYS[way] for way in ("sgd, L2", "minimal, one start")}
        patch.setattr(compare_methods, "WAYS", ways)
        patch.setattr(compare_methods, "PUBLISHED", {})
        yield path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "output"),
    [
        ("common.generate_5k", ("--count", "40"), "o.npz"),
        (f"{METHOD1}.compare_methods", ("--limit", "4"), "o.png"),
    ],
)
def test_the_same_seed_gives_the_same_bytes_from_any_folder(
    tmp_path, monkeypatch, module, arguments, output
):
    main = importlib.import_module(module).main
    # Nothing else is written: the checkout may be one that cannot be written to.
    monkeypatch.setattr(files, "IMG", Path("/proc/img"))
    written = []
    for folder, seed in (("first", "0"), ("second", "0"), ("other", "1")):
        path = tmp_path / folder / output
        path.parent.mkdir()
        main([*arguments, "--seed", seed, "--output", str(path)])
        assert list(path.parent.iterdir()) == [path]
        written.append(path.read_bytes())
        monkeypatch.chdir(tmp_path)
    assert written[0] == written[1] != written[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "name"),
    [
        ("common.train_mnist", ("--model", "cnn"), "cnn"),
        ("method2_fgsm.adversarial_training", ("--model", "mlp"), "mlp_adversarial_epochs1"),
    ],
)
def test_training_twice_gives_the_same_weights_predictions_and_figures(
    trained, tmp_path, monkeypatch, module, arguments, name
):
    plain = mnist.weights_path("mlp")
    written, weights = [], []
    for run in ("first", "second"):
        monkeypatch.setattr(files, "WEIGHTS", tmp_path / run / "weights")
        monkeypatch.setattr(files, "IMG", tmp_path / run / "img")
        files.WEIGHTS.mkdir(parents=True)
        shutil.copy(plain, files.WEIGHTS)
        paths = importlib.import_module(module).main([*arguments, "--epochs", "1"])
        # The weights file holds the time at which it was written; what it says has to be equal.
        weights.append(mnist.load(name).get_weights())
        written.append([path.read_bytes() for path in paths if path.suffix != ".h5"])
    assert written[0] == written[1]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_seed_trains_other_weights():
    optimizer = training.cosine_adam(2e-3)
    options = {"epochs": 1, "batch_size": 500}
    runs = [training.fit("softmax", optimizer, seed=seed, **options) for seed in (0, 1)]
    for one, other in zip(*(model.get_weights() for model in runs), strict=True):
        assert (one != other).any()


DRAW = """
import importlib, sys
for name in sys.argv[1:]:
    main = importlib.import_module(name).main
    for seed, output in ("0", "a.png"), ("0", "b.png"), ("1", "c.png"):
        options = "--rows", "1", "--columns", "2", "--seed", seed
        main([name + ".npz", *options, "--output", name + output])
assert not {"tensorflow", "keras"} & sys.modules.keys()
"""


def test_pictures_of_results_repeat_and_follow_the_seed_without_tensorflow(tmp_path, python):
    """Nor with a backend of Matplotlib that is there."""
    xs = np.random.default_rng(0).uniform(size=(40, 28, 28)).astype(np.float32)
    labels = {name: np.arange(40) % 10 for name in ("y_trues", "y_preds")}
    labels |= {name: np.arange(1, 41) % 10 for name in ("y_preds_adversarial", "y_targets")}
    config = {"model": "mlp", "eps": 0.1, "method": "minimal", "target": None}
    drawn = {
        "method2_fgsm.visualize_mnist": "mnist_fast_gradient",
        f"{METHOD1}.visualize_adv_examples": "attack_mnist",
    }
    for name, script in drawn.items():
        own = config | {"script": script}
        results.save(tmp_path / f"{name}.npz", xs=xs, noises=0 * xs, config=own, **labels)
    done = python("-c", DRAW, *drawn, cwd=tmp_path, MPLBACKEND="no_such")
    assert done.returncode == 0, done.stderr
    for name in drawn:
        first, again, other = ((tmp_path / f"{name}{x}.png").read_bytes() for x in "abc")
        assert first == again != other
