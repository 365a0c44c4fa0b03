"""Records from elsewhere: what the runner writes is read as it is, and everything else is refused by name."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyprune.devices import foreign
from whyprune.devices.foreign import parse_json, read_plain
from whyprune.devices.record import check_fits, checked_record, checked_spec, read_spec
from whyprune.devices.runner import checksum
from whyprune.errors import FormatError

HASH = "a" * 64
SPEC = {
    "schema_version": 1,
    "runtime": "ort",
    "threads": 1,
    "batch_size": 1,
    "cores": None,
    "memory_bytes": None,
    "networks": {"dense": {"path": "dense.onnx", "sha256": HASH}},
    "inputs": {"path": "inputs.npz", "sha256": HASH},
    "min_warmup": 5,
    "repeats": 200,
    "seconds": 6.0,
    "each_alone": True,
}
RECORD = {
    "schema_version": 1,
    "spec_sha256": HASH,
    "runtime": "ort",
    "threads": 1,
    "batch_size": 1,
    "samples_ms": {"dense": [1.5, 2.0]},
    "preempted_rounds": {"dense": [1]},
    "warmup_calls": {"dense": 5},
    "energy_mj": {},
    "energy_meter": None,
    "machine": {"cpu": "A72", "load_average": [0.5, 0.5, 0.5], "versions": {"numpy": "2.0"}},
    "cold_start_ms": {"dense": 30.0},
    "peak_memory_bytes": {"dense": 1000},
    "baseline_memory_bytes": None,
    "memory_limit": None,
    "outputs": {"path": "outputs.npz", "sha256": HASH},
}


def written(record):
    """As the runner writes it."""
    return (json.dumps({**record, "sha256": checksum(record)}, indent=1) + "\n").encode()


def changed(base, path, value):
    """A copy with another value at a path."""
    copy = json.loads(json.dumps(base))
    *way, last = path
    inner = copy
    for step in way:
        inner = inner[step]
    inner[last] = value
    return copy


@given(
    samples=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20),
    memory=st.integers(0, 2**40),
    cpu=st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40),
)
def test_what_a_runner_writes_is_read_as_it_is(samples, memory, cpu):
    record = changed(RECORD, ("samples_ms", "dense"), samples)
    record = changed(record, ("peak_memory_bytes", "dense"), memory)
    record = changed(record, ("machine", "cpu"), cpu)
    found = checked_record(written(record), "record.json")
    assert found.model_dump(mode="json") == {**record, "sha256": checksum(record)}
    check_fits(found, checked_spec(json.dumps(SPEC).encode(), "spec.json"), HASH, "record.json")


WRONG = [
    (("extra",), 1, "extra"),
    (("schema_version",), 2, "schema_version is 2, this whyprune reads 1"),
    (("schema_version",), "1", "schema_version"),
    (("threads",), 1.5, "threads is 1.5"),
    (("threads",), True, "threads is True"),
    (("threads",), 0, "threads is 0"),
    (("threads",), 10**30, "threads is 1000"),
    (("runtime",), None, "runtime is None"),
    (("runtime",), "x" * 1000, "runtime"),
    (("samples_ms",), [1.0], "samples_ms"),
    (("samples_ms",), {}, "samples_ms is {}"),
    (("samples_ms", "dense"), [], "samples_ms.dense"),
    (("samples_ms", "dense", 1), -2.0, "samples_ms.dense.1 is -2.0"),
    (("samples_ms", "dense", 1), 0, "samples_ms.dense.1 is 0"),
    (("samples_ms", "dense", 1), "2.0", "samples_ms.dense.1 is '2.0'"),
    (("samples_ms", "dense", 1), None, "samples_ms.dense.1 is None"),
    (("samples_ms", "dense", 1), 1e300, "samples_ms.dense.1"),
    (("samples_ms", "../dense"), [1.0], "samples_ms"),
    (("samples_ms", "a\u001b[31m"), [1.0], "samples_ms"),
    (("peak_memory_bytes", "dense"), -1, "peak_memory_bytes.dense is -1"),
    (("peak_memory_bytes", "dense"), 1.0, "peak_memory_bytes.dense is 1.0"),
    (("energy_mj",), {"dense": -1.0}, "energy_mj.dense is -1.0"),
    (("cold_start_ms",), {f"n{i}": 1.0 for i in range(1000)}, "cold_start_ms"),
    (("outputs", "path"), "../../outputs.npz", "outputs.path is '../../outputs.npz'"),
    (("outputs", "path"), "/etc/passwd", "outputs.path"),
    (("outputs", "sha256"), "A" * 64, "outputs.sha256"),
    (("outputs", "more"), 1, "outputs.more"),
    (("spec_sha256",), "", "spec_sha256"),
    (("machine",), [], "machine"),
    (("machine", "cpu"), "red\u001b[31m", "machine"),
    (("machine", "cpu"), "x" * 10000, "machine"),
    (("machine", "all"), list(range(10000)), "machine"),
    (("machine", "deep"), json.loads("[" * 20 + "]" * 20), "machine"),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), WRONG, ids=[f"{'.'.join(map(str, p))}={v!r:.20}" for p, v, _ in WRONG]
)
def test_a_hostile_record_is_refused_by_file_field_and_value(path, value, message):
    record = changed(RECORD, path, value)
    with pytest.raises(FormatError) as caught:
        checked_record(written(record), "from/record.json")
    text = str(caught.value)
    assert text.startswith("from/record.json")
    assert message in text
    assert len(text) < 600
    assert text.isprintable()


@pytest.mark.parametrize("field", RECORD)
def test_a_record_without_a_field_is_refused(field):
    record = {k: v for k, v in RECORD.items() if k != field}
    with pytest.raises(FormatError, match=f"{field} is missing"):
        checked_record(written(record), "record.json")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("networks",), {}, "networks"),
        (("networks", "dense", "path"), "../dense.onnx", "networks.dense.path"),
        (("networks", "dense", "path"), ".hidden", "networks.dense.path"),
        (("networks", "a/b"), {"path": "x.onnx", "sha256": HASH}, "networks.a/b"),
        (("inputs", "path"), "/inputs.npz", "inputs.path"),
        (("repeats",), 0, "repeats is 0"),
        (("seconds",), 0.0, "seconds is 0.0"),
        (("cores",), [], "cores"),
        (("cores",), [-1], "cores.0 is -1"),
        (("memory_bytes",), 5, "memory_bytes is 5"),
        (("each_alone",), 1, "each_alone is 1"),
        (("shell",), "rm -rf", "shell"),
    ],
)
def test_a_hostile_spec_is_refused(tmp_path, path, value, message):
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(changed(SPEC, path, value)))
    with pytest.raises(FormatError, match=r"spec\.json is no spec") as caught:
        read_spec(file)
    assert message in str(caught.value)


@given(st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000]))
def test_numbers_that_are_none_are_refused(number):
    text = written(RECORD).replace(b"1.5", number.encode())
    with pytest.raises(FormatError, match="record"):
        checked_record(text, "record.json")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"[]",
        b"1",
        b"{",
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b"[" * 100000,
        b'{"a":' * 100000,
        b"{}{}",
    ],
    ids=lambda d: repr(d[:20]),
)
def test_what_is_no_json_object_is_refused(data):
    with pytest.raises(FormatError, match=r"record\.json"):
        parse_json(data, "record.json")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_json_comes_back_as_it_was(value):
    found = parse_json(json.dumps({"a": value}).encode(), "x")["a"]
    assert json.dumps(found) == json.dumps(value)


def test_only_ordinary_files_of_a_size_are_read(tmp_path):
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room
    with pytest.raises(FormatError, match=r"huge\.json has 1,099,511,627,776 bytes"):
        read_plain(huge)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="pipe is no ordinary file"):
        read_plain(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(huge)
    with pytest.raises(FormatError, match="is a link"):
        read_plain(tmp_path / "link")
    for name in ("", "no", "a\0b"):
        with pytest.raises(FormatError):
            read_plain(tmp_path / name)
    (tmp_path / "fine").write_bytes(b"12345")
    assert read_plain(tmp_path / "fine", 5) == b"12345"
    with pytest.raises(FormatError, match="more than 4"):
        read_plain(tmp_path / "fine", 4)


@given(st.text())
def test_values_in_messages_are_short_and_printable(text):
    shown = foreign.shown(text, 30)
    assert shown.isprintable()
    assert len(shown) <= 30
