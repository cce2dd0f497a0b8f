"""A pass on the meta device imports no compiler."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import torch
from cambrian.sandbox.examination.static import static_check
from cambrian.sandbox.examination.uncompiled import spare_compiler
from cambrian.search_spaces import Signature


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mixer = torch.nn.GRU(4, 4, batch_first=True)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.mixer(x)[0].sub(x).amax(1))


spare_compiler()
with torch.device("meta"):
    network = Network()
facts = static_check(network, Signature(input_shape=(8, 4), n_outputs=2), 4)
print(facts.parameters, "torch._dynamo" in sys.modules)
"""


def test_kernels_in_python_do_without_it() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(2 * 3 * 4 * 4 + 2 * 3 * 4 + 4 * 2 + 2), "False"]
