import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.utils.flop_counter import FlopCounterMode

from cambrian.search_spaces.flop_counting import flop_counter


def test_it_counts_what_torchs_own_counts() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    samples = torch.zeros(2, 3, 8, 8)
    with FlopCounterMode(display=False) as theirs:
        network(samples)
    with flop_counter() as ours:
        network(samples)
    assert ours.get_total_flops() == theirs.get_total_flops() > 0


def test_no_hook_hangs_on_the_modules_of_other_threads() -> None:
    """Else an identity that is worked out meanwhile records the hook's calls, and comes out otherwise."""
    with FlopCounterMode(display=False):
        assert hooks._global_forward_pre_hooks, "this is what it is for"
    with flop_counter():
        assert not hooks._global_forward_pre_hooks and not hooks._global_forward_hooks
