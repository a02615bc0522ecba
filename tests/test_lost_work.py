"""No run overwrites what it reads, nor ends because nobody is there to see it."""

import errno
import os
import pty
import signal
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest

from common import files, models
from common.command import Failure
from common.imagenet import networks
from method2_fgsm import certified


@pytest.mark.parametrize("name", ["in.npz", "sub/../in.npz", "link.npz", "hard.npz", "new.npz"])
@pytest.mark.parametrize("several", [False, True])
def test_an_output_that_the_run_has_for_something_else_is_refused(tmp_path, name, several):
    (tmp_path / "sub").mkdir()
    (tmp_path / "in.npz").write_bytes(b"precious")
    (tmp_path / "link.npz").symlink_to("in.npz")
    os.link(tmp_path / "in.npz", tmp_path / "hard.npz")
    output = tmp_path / name
    same = tmp_path / ("new.npz" if name == "new.npz" else "in.npz")
    args = SimpleNamespace(output=output, samples=[same] if several else same, seed=0, eps=None)
    with pytest.raises(Failure, match="for something else"):
        files.check_output(output, args)
    with pytest.raises(Failure, match="for something else"):
        files.check_output(output, inputs=[same])
    args.samples = tmp_path / "other.npz"
    assert files.check_output(output, args) == output
    assert (tmp_path / "in.npz").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("script", "given"),
    [
        ("method1_noise_optimization/attack_mnist", ("--samples",)),
        ("method2_fgsm/imnet_fast_gradient", ("--labels",)),
        ("common/my_digits", ()),
        ("method2_fgsm/two_to_six", ("--samples",)),
    ],
)
def test_scripts_refuse_to_overwrite_what_they_read(refuses, place, script, given):
    name = {"imnet_fast_gradient": "a.csv", "attack_mnist": "a.npz"}.get(
        script.rsplit("/")[-1], "a.png"
    )
    path = place / name
    path.write_bytes(b"precious")
    output = "--figure" if script == "common/my_digits" else "--output"
    refuses(script, *given, path, output, path, culprit=name)


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
    for part in (models, networks):
        monkeypatch.setattr(part, "load", lambda *_: pytest.fail("loaded"))
    (place / also).touch(0o444)
    refuses(script, "--output", place / output, culprit=f"{also}: it is write-protected")


def in_a_terminal(tmp_path, hangup):
    """A run whose terminal goes away after its first line: (exit code, whether it got to its end).

    hangup: what SIGHUP does there.
    """
    code = (
        "import signal, sys\n"
        "from common import command\n"
        f"signal.signal(signal.SIGHUP, signal.{hangup})\n"
        "def main():\n"
        "    print('begun', flush=True)\n"
        f"    while open({str(tmp_path / 'gone')!r}).read() != 'gone': pass\n"
        "    for stream in (sys.stdout, sys.stderr): print('x' * 10**5, file=stream, flush=True)\n"
        f"    open({str(tmp_path / 'end')!r}, 'w').close()\n"
        "command.run(main)\n"
    )
    (tmp_path / "gone").touch()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, ["python", "-c", code], {"PYTHONPATH": str(files.ROOT)})
    assert b"begun" in os.read(terminal, 100)
    os.close(terminal)
    (tmp_path / "gone").write_text("gone")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), (tmp_path / "end").exists()


def test_a_terminal_that_goes_away_ends_a_run_only_by_sighup(tmp_path):
    assert in_a_terminal(tmp_path, "SIG_DFL") == (-signal.SIGHUP, False)
    assert in_a_terminal(tmp_path, "SIG_IGN") == (0, True)


@pytest.mark.parametrize("end", ["return []", "raise command.Failure('other')"])
def test_a_full_disk_under_what_is_printed_is_one_line(end):
    code = f"from common import command\ndef main():\n    print(1)\n    {end}\ncommand.run(main)"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(files.ROOT)},
        )
    assert done.returncode == 1
    assert done.stderr == f"-c: error: cannot print: {os.strerror(errno.ENOSPC)}\n"
