"""Result files: what is saved comes back, the bytes repeat, and nothing else passes for one."""

import numpy as np
import pytest

from common import results
from common.command import Failure


def arrays(n=3):
    rng = np.random.default_rng(0)
    xs = rng.random((n, 28, 28), np.float32)
    return {
        "xs": xs,
        "noises": rng.random((n, 28, 28), np.float32) - xs,
        "y_trues": np.arange(n),
        "y_preds": np.arange(n),
        "y_preds_adversarial": np.arange(n)[::-1],
    }


def save(path, **changes):
    results.save(path, **{**arrays(), "config": {"model": "mlp", "seed": 0}, **changes})
    return path


def test_what_is_saved_comes_back(tmp_path):
    extra = {"y_targets": [1, 2, 3], "indices": [7, 70, 700], "iterations": np.array([1, 5, 9])}
    loaded = results.load(save(tmp_path / "r.npz", **extra))
    for name, array in {**arrays(), **extra}.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert loaded["xs"].dtype == loaded["noises"].dtype == np.float32
    assert loaded["y_targets"].dtype == np.int64
    assert loaded["config"]["model"] == "mlp"
    assert loaded["config"]["versions"]["numpy"] == np.__version__


def test_the_same_results_give_the_same_bytes(tmp_path):
    first, second = save(tmp_path / "a.npz"), save(tmp_path / "b.npz")
    assert first.read_bytes() == second.read_bytes()


def test_no_images_at_all_are_results_too(tmp_path):
    save(tmp_path / "r.npz", **arrays(0))
    assert results.load(tmp_path / "r.npz")["xs"].shape == (0, 28, 28)


@pytest.mark.parametrize(
    "changes",
    [
        {"noises": np.zeros((2, 28, 28), np.float32)},
        {"noises": np.full((3, 28, 28), np.nan, np.float32)},
        {"noises": np.full((3, 28, 28), 2, np.float32)},
        {"xs": np.full((3, 28, 28), 2, np.float32)},
        {"y_trues": [1, 2]},
        {"y_targets": [-1, 2, 3]},
        {"iterations": np.array([1, 2])},
        {"name": np.array(["a", "b", "c"])},
        {"things": np.array([{}, {}, {}])},
    ],
)
def test_arrays_that_do_not_belong_together_are_not_saved(tmp_path, changes):
    with pytest.raises(ValueError, match=r"has|is|holds"):
        save(tmp_path / "r.npz", **changes)
    assert not list(tmp_path.iterdir())


def test_a_truncated_file_is_refused_at_every_length(tmp_path):
    whole = save(tmp_path / "r.npz").read_bytes()
    for length in (0, 1, 10, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(Failure, match=r"cut\.npz"):
            results.load(tmp_path / "cut.npz")
