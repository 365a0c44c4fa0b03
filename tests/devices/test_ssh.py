"""Over a real sshd, as another user, with a Python that knows nothing of whyprune."""

import os
import signal
import subprocess
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import sshd
import torch
from carried import NETWORKS

from whyprune.data.batches import Batch
from whyprune.devices.bundle import MeasurementRequest
from whyprune.devices.ssh import RemoteDevice
from whyprune.errors import DeviceError, FormatError
from whyprune.testing.devices import check_device

pytestmark = pytest.mark.skipif(sshd.why_not() is not None, reason=str(sshd.why_not()))
SHORT = MeasurementRequest(repeats=20, seconds=0.5)


INPUTS = Batch((torch.arange(6.0).reshape(2, 3),), {})


@pytest.fixture(scope="module")
def machine(request):
    device = sshd.Device(request.config.cache.mkdir("device-python"))
    yield device
    device.remove()


@pytest.fixture
def device(machine):
    machine.go_on()
    machine.know("host")
    yield machine
    machine.go_on()
    machine.start()


@pytest.fixture
def remote(device, tmp_path):
    return RemoteDevice(device.address, SHORT, timeout_s=120, workspace=tmp_path / "kept", options=device.options)


def kept(remote):
    return sorted(p.name for p in remote.workspace.rglob("*.json"))


def test_the_networks_are_measured_there_and_nothing_is_left(device, remote):
    found = remote(NETWORKS, INPUTS)
    assert found.device == device.address
    assert found.kind == "measured"
    assert {name: len(times) for name, times in found.samples_ms.items()} == {"dense": 20, "pruned": 20}
    assert set(found.cold_start_ms) == set(found.peak_memory_bytes) == {"dense", "pruned"}
    assert max(found.max_abs_difference.values()) == 0
    assert device.left() == []
    assert kept(remote) == []


def test_it_keeps_the_contract_of_devices(device, remote):
    check_device(remote)
    assert device.left() == []


@pytest.mark.parametrize("victim", ["measurement", "runner", "supervisor", "connection"])
def test_a_run_killed_in_the_middle_goes_on_where_it_was(device, remote, victim):
    device.hang("rounds")
    outcome = []
    killer = threading.Thread(target=lambda: outcome.append(kill(device, remote, victim)))
    killer.start()
    with pytest.raises(DeviceError) as caught:
        remote(NETWORKS, INPUTS)
    killer.join()
    assert outcome == [True]
    assert "run the same again" in str(caught.value)
    assert len(kept(remote)) == 3
    device.go_on()
    if victim == "supervisor":  # a kill -9 leaves its folder: the next run removes it
        assert len(list(device.tmp.iterdir())) == 1
    else:
        assert device.left() == []
    device.hang("alone:")  # would hang if it did not go on from the parts
    found = remote(NETWORKS, INPUTS)
    assert set(found.cold_start_ms) == {"dense", "pruned"}
    assert device.left() == []
    assert kept(remote) == []


def finished(remote):
    """Waits until each network alone and the runtime without one are measured, and here."""
    for _ in range(600):
        if len(kept(remote)) == 3:
            return
        time.sleep(0.05)
    raise AssertionError(kept(remote))


def kill(device, remote, victim):
    hanging = device.hanging()
    finished(remote)
    parents = {pid: parent(pid) for pid in device.processes()}
    chosen = {
        "measurement": hanging,
        "runner": parents[hanging],
        "supervisor": parents[parents[hanging]],
        "connection": parents[parents[parents[hanging]]],
    }[victim]
    if victim == "connection":  # sshd starts commands through the user's shell, which may stay between
        while "sshd" not in device.processes().get(chosen, "sshd"):
            chosen = parent(chosen)
    os.kill(chosen, signal.SIGKILL)
    return True


def parent(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_ctrl_c_leaves_nothing_there_and_keeps_what_was_finished(device, remote):
    device.hang("rounds")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        device.hanging()
        finished(remote)
        os.kill(os.getpid(), signal.SIGINT)

    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            remote(NETWORKS, INPUTS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert device.left() == []
    assert len(kept(remote)) == 3


def test_a_run_that_takes_too_long_is_ended(device, remote):
    device.hang("baseline")
    with pytest.raises(DeviceError, match=r"did not finish in time.*run the same again"):
        replace(remote, timeout_s=6.0)(NETWORKS, INPUTS)
    assert device.left() == []


def test_a_wrong_host_key_is_refused(device, remote):
    device.know("other")
    with pytest.raises(DeviceError, match=r"host key is not the one you know it by.*ssh-keygen -R"):
        remote(NETWORKS, INPUTS)
    assert device.left() == []


def test_an_unknown_host_key_is_refused_and_not_learned(device, remote):
    (device.root / "known").write_text("")
    with pytest.raises(DeviceError, match=r"host key is not known here: log in once by hand"):
        remote(NETWORKS, INPUTS)
    assert (device.root / "known").read_text() == ""


def test_a_key_that_is_not_let_in(device, remote):
    options = tuple(w.replace(str(device.root / "user"), str(device.root / "other")) for w in remote.options)
    with pytest.raises(DeviceError, match=r"does not let you in .*Permission denied.*ssh-copy-id"):
        replace(remote, options=options)(NETWORKS, INPUTS)
    assert device.left() == []


def test_nobody_answers(device, remote):
    device.stop()
    with pytest.raises(DeviceError, match=r"no ssh server answers there .*Connection refused"):
        remote(NETWORKS, INPUTS)


def test_no_python_of_that_name(device, remote):
    name = f"ssh://{sshd.USER}@127.0.0.1:{device.port}/no/such/python"
    with pytest.raises(DeviceError, match=r"there is no /no/such/python that can be run"):
        replace(remote, name=name)(NETWORKS, INPUTS)
    assert device.left() == []


def test_a_python_without_the_runtime(device, remote):
    bare = device.root / "bare"
    if not bare.exists():
        sshd.run(str(device.python), "-m", "venv", "--without-pip", str(bare))
    name = f"ssh://{sshd.USER}@127.0.0.1:{device.port}{bare}/bin/python"
    with pytest.raises(
        DeviceError, match=rf"{bare}/bin/python \(3\.\d+\) has no numpy and no onnxruntime.*pip install"
    ):
        replace(remote, name=name)(NETWORKS, INPUTS)
    assert device.left() == []


def test_no_temporary_folder_that_can_be_written(device, remote):
    (device.home / "no-tmp").touch()
    with pytest.raises(DeviceError, match=r"there is no temporary folder to write to there .*set TMPDIR"):
        remote(NETWORKS, INPUTS)
    assert device.left() == []


@pytest.mark.parametrize(("kilobytes", "repeats"), [(24, 20), (160, 20000)], ids=["while copying", "while measuring"])
def test_a_full_disk(device, remote, kilobytes, repeats):
    small = device.root / "small"
    small.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=1777", "tmpfs", str(small)], check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        device.start(tmp=small)
        request = MeasurementRequest(repeats=repeats, seconds=2.0)
        with pytest.raises(DeviceError, match=r"the disk there is full.*make room, or set TMPDIR"):
            replace(remote, request=request)(NETWORKS, INPUTS)
        assert device.left() == []
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_what_a_shell_prints_at_login_does_no_harm(device, remote):
    device.start(command='echo "welcome"; printf "whyprune-device {no json"; echo; eval "$SSH_ORIGINAL_COMMAND"')
    found = remote(NETWORKS, INPUTS)
    np.testing.assert_array_equal(found.max_abs_difference["pruned"], 0)
    assert device.left() == []


def test_a_record_changed_on_its_way_is_refused(device, remote):
    device.start(command='eval "$SSH_ORIGINAL_COMMAND" | sed s/offset.:.0,/offset\\":1,/')
    with pytest.raises((DeviceError, FormatError), match=r"damaged on its way"):
        remote(NETWORKS, INPUTS)
    assert device.left() == []
