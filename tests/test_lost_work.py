"""No run overwrites what it reads."""

import os
import stat
from types import SimpleNamespace

import pytest

from common import files
from common.command import Failure
from common.networks import imagenet, mnist
from method2_fgsm import certified


@pytest.mark.parametrize("name", ["in.npz", "sub/../in.npz", "link.npz", "hard.npz", "new.npz"])
def test_an_output_that_the_run_has_for_something_else_is_refused(tmp_path, name):
    (tmp_path / "sub").mkdir()
    (tmp_path / "in.npz").write_bytes(b"precious")
    (tmp_path / "link.npz").symlink_to("in.npz")
    os.link(tmp_path / "in.npz", tmp_path / "hard.npz")
    output = tmp_path / name
    same = tmp_path / ("new.npz" if name == "new.npz" else "in.npz")
    args = SimpleNamespace(output=output, samples=same, seed=0, eps=None)
    several = SimpleNamespace(output=output, images=[same])
    for given in ((args,), (several,), (None, [same])):
        with pytest.raises(Failure, match="for something else"):
            files.check_output(output, *given)
    args.samples = tmp_path / "other.npz"
    assert files.check_output(output, args) == output
    assert (tmp_path / "in.npz").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("script", "given", "name"),
    [
        ("method1_noise_optimization/attack_mnist", "--samples", "a.npz"),
        ("method2_fgsm/imnet_fast_gradient", "--labels", "a.csv"),
        ("method2_fgsm/two_to_six", "--samples", "a.png"),
    ],
)
def test_scripts_refuse_to_overwrite_what_they_read(refuses, place, script, given, name):
    (place / name).write_text("0\n")
    refuses(script, given, place / name, "--output", place / name, culprit=name)


def test_handwriting_is_not_overwritten_by_the_figure_of_it(refuses, place):
    (place / "a.png").write_bytes(b"precious")
    refuses("common/my_digits", place / "a.png", "--figure", place / "a.png", culprit="a.png")


def test_a_write_protected_file_is_not_replaced(refuses, place):
    (place / "out.npz").chmod(0o444)
    refuses("common/generate_5k", "--output", place / "out.npz", culprit="write-protected")
    assert stat.S_IMODE((place / "out.npz").stat().st_mode) == 0o444


@pytest.mark.parametrize(
    ("script", "output", "also"),
    [
        ("method1_noise_optimization/distances", "a.png", "a_distances.npz"),
        ("method2_fgsm/certified", "a.png", "proven.npz"),
        ("method2_fgsm/robustness", "a.png", "a.json"),
        ("method2_fgsm/imnet_fast_gradient", "a.csv", "a.npz"),
    ],
)
def test_all_that_a_run_writes_is_looked_at_before_the_work(
    refuses, place, monkeypatch, script, output, also
):
    monkeypatch.setattr(certified, "PROVEN_EPS", place / "proven.npz")
    for part in (mnist, imagenet):
        monkeypatch.setattr(part, "load", lambda *_: pytest.fail("loaded"))
    (place / also).touch(0o444)
    refuses(script, "--output", place / output, culprit=f"{also}: it is write-protected")
