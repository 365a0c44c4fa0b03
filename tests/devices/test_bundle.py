"""Bundles: what is in them, that they give what PyTorch gives, and that every change on the way is found."""

import gzip
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from carried import INPUTS, NETWORKS, REQUEST, Times, bundle_with_results, rewritten
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whyprune.devices import places
from whyprune.devices.bundle import write_bundle
from whyprune.devices.foreign import read_arrays, sha256
from whyprune.devices.returned import read_results
from whyprune.errors import FormatError, InputError, VerificationError

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    return bundle_with_results(tmp_path_factory.mktemp("carried"))


@pytest.fixture
def away(carried, tmp_path):
    """A copy to do harm to."""
    return shutil.copytree(carried[1], tmp_path / "away")


@pytest.fixture
def packed(tmp_path):
    """Makes an archive of members, each a name or a `TarInfo`, and bytes."""

    def pack(*members):
        path = tmp_path / "packed.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for member, data in members:
                info = tarfile.TarInfo(member) if isinstance(member, str) else member
                info.size = info.size or len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return pack


def test_a_bundle_is_its_files_with_checksums_that_the_usual_tool_reads(carried):
    _, away = carried
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=away, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    summed = {line.split()[1] for line in (away / "SHA256SUMS").read_text().splitlines()}
    made = {"record.json", "outputs.npz", "SHA256SUMS"}
    assert summed == {f.name for f in away.iterdir()} - made
    assert len((away / "README.txt").read_text().splitlines()) == 3


def test_results_fit_the_networks_from_the_folder_and_from_the_archive(carried, tmp_path):
    home, away = carried
    brought = tmp_path / "brought"
    brought.mkdir()
    for name in ("record.json", "outputs.npz"):
        shutil.copy(away / name, brought)
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as tar:
        tar.add(away, "bundle")
    ways = [(away, None), (away / "record.json", home), (brought, home), (tmp_path / "all.tar.gz", None), (away, away)]
    found = [read_results(path, bundle, device="board") for path, bundle in ways]
    for one in found:
        assert one.device == "board"
        assert one.runtime == "ort"
        assert one.max_abs_difference == {"dense": 0, "pruned": 0}
        assert one.latency["dense"].batch_size == REQUEST.batch_size
        assert one.size_bytes["dense"] == (away / "dense.onnx").stat().st_size
        np.testing.assert_array_equal(one.samples_ms["pruned"], found[0].samples_ms["pruned"])


def test_the_same_bundle_is_the_same_file(carried, tmp_path):
    again = write_bundle(NETWORKS, INPUTS, tmp_path / "home.tar.gz", REQUEST)
    assert again.read_bytes() == carried[0].read_bytes()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_changed_byte_is_found(carried, tmp_path, data):
    away = tmp_path / "changed"
    shutil.rmtree(away, ignore_errors=True)
    shutil.copytree(carried[1], away)
    path = away / data.draw(st.sampled_from(sorted(f.name for f in away.iterdir())), "file")
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1), "position")
    content[position] ^= data.draw(st.integers(1, 255), "change")
    path.write_bytes(content)
    with pytest.raises(FormatError, match=str(away)):
        read_results(away)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 0.999))
def test_every_cut_off_file_is_found(carried, tmp_path, cut):
    away = tmp_path / "cut"
    shutil.rmtree(away, ignore_errors=True)
    shutil.copytree(carried[1], away)
    for name in ("record.json", "outputs.npz", "spec.json", "expected.npz", "pruned.onnx"):
        whole = (away / name).read_bytes()
        (away / name).write_bytes(whole[: int(cut * len(whole))])
        with pytest.raises(FormatError):
            read_results(away)
        (away / name).write_bytes(whole)
    cut_off = tmp_path / "cut.tar.gz"
    archive = carried[0].read_bytes()
    cut_off.write_bytes(archive[: int(cut * len(archive))])
    with pytest.raises(FormatError):
        read_results(carried[1], cut_off)


CHANGES = {
    "another bundle's": (lambda r: r.update(spec_sha256="0" * 64), "of another bundle"),
    "a runtime not asked for": (lambda r: r.update(runtime="magic"), "runtime is 'magic', asked was 'ort'"),
    "threads not asked for": (lambda r: r.update(threads=7), "threads is 7, asked were 1"),
    "a network too many": (lambda r: r["samples_ms"].update(third=[1.0] * 12), "'third'"),
    "a network too few": (lambda r: r["samples_ms"].pop("dense"), "asked were"),
    "unequal rounds": (lambda r: r["samples_ms"]["dense"].pop(), "rounds"),
    "rounds too many": (lambda r: [s.extend([1.0] * 1000) for s in r["samples_ms"].values()], "at most 12"),
    "memory of a stranger": (lambda r: r["peak_memory_bytes"].update(third=5), "peak_memory_bytes has"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_record_that_does_not_answer_the_bundle_is_refused(away, case):
    change, message = CHANGES[case]
    rewritten(away, change)
    with pytest.raises(FormatError, match="does not fit the bundle") as caught:
        read_results(away)
    assert message in str(caught.value)
    assert "record.json" in str(caught.value)


def put_outputs(away, arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    put(away, stream.getvalue())


def put(away, data):
    """Other outputs, with a record that fits them."""
    (away / "outputs.npz").write_bytes(data)
    rewritten(away, lambda r: r["outputs"].update(sha256=sha256(data)))


def test_outputs_other_than_those_of_pytorch_are_refused(away):
    with np.load(away / "outputs.npz") as held:
        arrays = dict(held)
    largest = max(float(np.abs(a).max()) for a in arrays.values())
    put_outputs(away, {**arrays, "dense/0": arrays["dense/0"] + np.float32(0.0001)})
    assert read_results(away).max_abs_difference["dense"] == pytest.approx(0.0001, rel=0.05)
    put_outputs(away, {**arrays, "dense/0": arrays["dense/0"] + np.float32(0.002 * largest)})
    with pytest.raises(VerificationError, match="network 'dense' on the device differs from PyTorch"):
        read_results(away)
    put_outputs(away, {"dense/0": arrays["dense/0"]})
    with pytest.raises(VerificationError, match="other than PyTorch's"):
        read_results(away)
    put_outputs(away, {**arrays, "dense/0": arrays["dense/0"] * np.nan})
    with pytest.raises(FormatError, match="NaN or infinite"):
        read_results(away)


def npy(header, data=b""):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def zipped(**entries):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped(**{"a.npy": bytes(5000)}), "unpacks to 5,000 bytes"),
        (zipped(**{"a.npy": npy(FLOATS % "(1000000000000,)")}), "claims the shape"),
        (zipped(**{"a.npy": npy(FLOATS % "(-1,)")}), "claims the shape"),
        (zipped(**{"a.npy": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"x" * 8)}), "only numbers"),
        (zipped(**{"a.txt": b"text"}), "one .npy per array"),
        (zipped(**{"a.npy": b"no array"}), "no whole .npz file"),
        (b"no zip", "no whole .npz file"),
    ],
)
def test_hostile_arrays_are_refused(data, message):
    with pytest.raises(FormatError, match=r"hostile\.npz") as caught:
        read_arrays(data, "hostile.npz", limit=1000)
    assert message in str(caught.value)


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.float32(2), np.arange(6).reshape(2, 3).T, np.array([True])])
def test_arrays_of_every_shape_come_back(array):
    stream = io.BytesIO()
    np.savez(stream, a=array)
    np.testing.assert_array_equal(read_arrays(stream.getvalue(), "x.npz")["a"], array)


def special(name, kind, size=0, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


@pytest.mark.parametrize(
    "member",
    [
        special("b/record.json", tarfile.SYMTYPE, target="/etc/passwd"),
        special("b/record.json", tarfile.LNKTYPE, target="b/spec.json"),
        special("b/record.json", tarfile.CHRTYPE),
        special("b/record.json", tarfile.FIFOTYPE),
        special("../record.json", tarfile.REGTYPE),
        special("/tmp/record.json", tarfile.REGTYPE),
        special("b/c/record.json", tarfile.REGTYPE),
        special("b/../record.json", tarfile.REGTYPE),
        special("b/record.json", tarfile.REGTYPE, size=2**40),
        special("b/new\nline", tarfile.REGTYPE),
    ],
    ids=lambda m: f"{m.name!r} of type {m.type!r}",
)
def test_hostile_archives_are_refused_and_nothing_is_unpacked(packed, carried, tmp_path, member):
    size = member.size
    member.size = 0
    path = packed((member, b""))
    if size:
        # A size that the archive does not hold: the header says it, the rest is missing.
        member.size = size
        path.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FormatError, match=r"packed\.tar\.gz"):
        read_results(path, carried[0])
    assert sorted(tmp_path.rglob("*")) == before


def test_archives_that_grow_without_end_are_refused(packed, carried, monkeypatch):
    monkeypatch.setattr(places, "MAX_ARCHIVE_BYTES", 2**20)
    bomb = packed(*((f"b/file{i}", bytes(2**18)) for i in range(8)))
    assert bomb.stat().st_size < 2**14
    with pytest.raises(FormatError, match="unpacks to more than"):
        read_results(bomb, carried[0])
    monkeypatch.setattr(places, "MAX_ARRAY_BYTES", 2**16)
    extended = special("b/record.json", tarfile.XHDTYPE, size=2**30)
    bomb.write_bytes(gzip.compress(extended.tobuf(tarfile.GNU_FORMAT) + bytes(2**12)))
    with pytest.raises(FormatError, match=r"packed\.tar\.gz"):
        read_results(bomb, carried[0])
    with pytest.raises(FormatError, match="twice"):
        read_results(packed(("b/a", b""), ("b/a", b"")), carried[0])


def test_links_and_other_things_in_a_folder_are_not_followed(away, tmp_path):
    outside = tmp_path / "outside.json"
    (away / "record.json").rename(outside)
    (away / "record.json").symlink_to(outside)
    with pytest.raises(FormatError, match="is a link"):
        read_results(away)
    (away / "record.json").unlink()
    with pytest.raises(FormatError, match=r"cannot read .*record\.json"):
        read_results(away)
    (away / "record.json").mkdir()
    with pytest.raises(FormatError, match=r"record\.json"):
        read_results(away)
    with pytest.raises(FormatError, match="give one of them"):
        read_results(tmp_path / "nothing.zip")


def test_a_file_is_carried_as_it_is_and_compared_with_nothing(carried, tmp_path):
    dense = carried[1] / "dense.onnx"
    away = write_bundle({"file": dense, "module": NETWORKS["pruned"]}, INPUTS, tmp_path / "away", REQUEST)
    assert (away / "file.onnx").read_bytes() == dense.read_bytes()
    done = subprocess.run([sys.executable, away / "runner.py"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_results(away).max_abs_difference == {"module": 0}
    (tmp_path / "broken.onnx").write_bytes(dense.read_bytes()[:50])
    with pytest.raises(FormatError, match=r"broken\.onnx is no whole ONNX file"):
        write_bundle({"file": tmp_path / "broken.onnx"}, INPUTS, tmp_path / "other", REQUEST)


def test_writing_refuses_what_cannot_be_a_bundle_and_leaves_nothing(tmp_path, carried):
    target = tmp_path / "b"
    cases = [
        (NETWORKS, replace(REQUEST, batch_size=9), "4 inputs for a batch of 9"),
        (NETWORKS, replace(REQUEST, repeats=0), "repeats is 0"),
        (NETWORKS, replace(REQUEST, seconds=float("inf")), "seconds"),
        ({}, REQUEST, "no network"),
        ({"../out": Times(1.0)}, REQUEST, "../out"),
        ({"a": Times(1.0), "A": Times(1.0)}, REQUEST, "differ in case only"),
        ({"a": torch.sin}, REQUEST, "give a module, or an ONNX file's path"),
    ]
    for networks, asked, message in cases:
        with pytest.raises(InputError) as caught:
            write_bundle(networks, INPUTS, target, asked)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="exists"):
        write_bundle(NETWORKS, INPUTS, carried[0], REQUEST)
    with pytest.raises(InputError, match="cannot write"):
        write_bundle(NETWORKS, INPUTS, tmp_path / "no" / "folder", REQUEST)
    assert list(tmp_path.iterdir()) == []
