"""Two processes on the CPU do what one does on the joined batch."""

import os
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from whyprune.recovery import Recovery, recover

# Every process runs this file from the top, as it would a user's script.
SCRIPT = """
import atexit, os, sys
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from whyprune.recovery import Recovery, recover

folder = sys.argv[1]


@atexit.register  # before the library's own handlers, so that it runs after them
def tell():
    with open(f"{folder}/open{os.environ['LOCAL_RANK']}", "w") as file:
        file.write(str(torch.distributed.is_initialized()))


torch.set_num_threads(1)
data = load_file(f"{folder}/data.safetensors")
network = nn.Linear(4, 3)
network.load_state_dict(load_file(f"{folder}/network.safetensors"))
recovery = Recovery(epochs=3, validation_fraction=0, learning_rate=0.5, accelerator="cpu", devices=2, strategy="ddp")
batches = list(zip(data["x"].split(8), data["y"].split(8)))
result = recover(network, batches, recovery, checkpoint=f"{folder}/checkpoint", progress=False)
save_file(result.model.state_dict(), f"{folder}/rank{os.environ.get('LOCAL_RANK', '0')}.safetensors")
"""


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 4, generator=generator), torch.randint(3, (16,), generator=generator)
    network = nn.Linear(4, 3)
    save_file({"x": x, "y": y}, tmp_path / "data.safetensors")
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path],
        env=os.environ | {"MASTER_ADDR": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"open{rank}").read_text() for rank in range(2)] == ["False", "False"]
    one, other = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2))
    recovery = Recovery(epochs=3, validation_fraction=0, learning_rate=0.5)
    expected = recover(network, [(x, y)], recovery, progress=False).model.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(one[name], other[name])
        torch.testing.assert_close(one[name], tensor)
    assert not torch.equal(expected["weight"], network.weight)
