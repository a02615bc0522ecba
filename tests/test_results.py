"""Result files: what is saved comes back, the bytes repeat, and nothing else passes for one."""

import numpy as np
import pytest

from common import results


def save(path, n=3, **changes):
    rng = np.random.default_rng(0)
    arrays = {"xs": rng.random((n, 28, 28), np.float32)}
    arrays["noises"] = rng.random((n, 28, 28), np.float32) - arrays["xs"]
    arrays |= {"y_trues": np.arange(n), "y_preds": np.arange(n)}
    arrays |= {"y_preds_adversarial": np.arange(n)[::-1]} | changes
    results.save(path, config={"model": "mlp", "seed": 0}, **arrays)
    return arrays


def test_what_is_saved_comes_back_and_the_bytes_repeat(tmp_path):
    extra = {"y_targets": [1, 2, 3], "indices": [7, 70, 700], "iterations": np.array([1, 5, 9])}
    for name in ("a.npz", "b.npz"):
        arrays = save(tmp_path / name, **extra)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = results.load(tmp_path / "a.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert loaded["xs"].dtype == loaded["noises"].dtype == np.float32
    assert loaded["y_targets"].dtype == np.int64
    assert loaded["config"]["model"] == "mlp"
    assert loaded["config"]["versions"]["numpy"] == np.__version__
    # No images at all are results too.
    save(tmp_path / "r.npz", 0)
    assert results.load(tmp_path / "r.npz")["xs"].shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("noises", np.zeros((2, 28, 28), np.float32)),
        ("noises", np.full((3, 28, 28), np.nan, np.float32)),
        ("noises", np.full((3, 28, 28), 2, np.float32)),
        ("y_targets", [-1, 2, 3]),
        ("iterations", np.array([1, 2])),
        ("name", np.array(["a", "b", "c"])),
    ],
)
def test_arrays_that_do_not_belong_together_are_not_saved(tmp_path, name, array):
    with pytest.raises(ValueError, match=name):
        save(tmp_path / "r.npz", **{name: array})
    assert not list(tmp_path.iterdir())
