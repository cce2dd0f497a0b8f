import json
import math
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.sandbox.examination import evidence
from cambrian.sandbox.examination.identity import identity
from cambrian.sandbox.examination.probe import probe
from cambrian.sandbox.examination.static import check, take_examination
from cambrian.search_spaces import SPACES, Genotype, Signature
from cambrian.search_spaces.blocks import GlobalPool
from tests.sandbox.examination.conftest import Apply, ToySpace, convnets

SPACE = SPACES.create("convnet")
DIGITS = Signature(input_shape=(1, 8, 8), n_outputs=10)
FASHION = Signature(input_shape=(1, 28, 28), n_outputs=10)
ROW = Signature(input_shape=(6,), n_outputs=10)
PICTURE = Signature(input_shape=(3, 6, 6), n_outputs=10)


def toy(make: Callable[[], nn.Module], signature: Signature = ROW, name: str = "it") -> str:
    return identity(ToySpace(**{name: make}), {"of": name}, signature)


def evolved(n: int, seed: int) -> list[Genotype]:
    """Distinct canonical genotypes, a third of them random and the others descended from those."""
    rng = random.Random(seed)
    pool = [*SPACE.baselines().values(), *(SPACE.sample(rng) for _ in range(n // 3))]
    texts = {json.dumps(genotype, sort_keys=True) for genotype in pool}
    while len(texts) < n:
        parent = rng.choice(pool)
        if rng.random() < 0.8:
            child, _ = SPACE.mutate(parent, rng)
        else:
            child, _ = SPACE.crossover(parent, rng.choice(pool), rng)
        pool.append(child)
        texts.add(json.dumps(child, sort_keys=True))
    return [json.loads(text) for text in sorted(texts)]


def with_random_weights(genotype: Genotype, signature: Signature, seed: int) -> nn.Module:
    """The real module; weights random, but equal for parameters of equal shape and rank of first use."""
    seen = take_examination(SPACE, genotype, signature)
    names = {id(parameter): name for name, parameter in seen.module.named_parameters()}
    module = SPACE.build(genotype, signature).double()
    ranks: dict[tuple[int, ...], int] = defaultdict(int)
    with torch.no_grad():
        for key in seen.trace.used:
            parameter = module.get_parameter(names[key])
            shape = tuple(parameter.shape)
            ranks[shape] += 1
            generator = torch.Generator().manual_seed(hash((seed, shape, ranks[shape])) % 2**31)
            parameter.copy_(torch.randn(shape, generator=generator, dtype=torch.float64))
            if len(shape) > 1:
                parameter.mul_(math.sqrt(2 * shape[0] / parameter.numel()))
    return module


def compute_the_same(first: Genotype, second: Genotype, signature: Signature) -> bool:
    for seed in range(3):
        modules = [with_random_weights(genotype, signature, seed) for genotype in (first, second)]
        inputs = torch.randn(3, *signature.input_shape, dtype=torch.float64)
        for training in (True, False):
            outputs = []
            for module in modules:
                torch.manual_seed(seed)
                with torch.no_grad():
                    outputs.append(module.train(training)(inputs))
            if not torch.allclose(*outputs, rtol=1e-9, atol=1e-12):
                return False
    return True


class TestEvidence:
    """On networks that a run meets: an identity for each genotype, but for those that are really the same."""

    @pytest.mark.parametrize(
        ("signature", "n"),
        [
            (DIGITS, 250),
            (FASHION, 120),
            pytest.param(DIGITS, 1000, marks=pytest.mark.slow),
        ],
        ids=["digits", "fashion", "digits-1000"],
    )
    def test_never_merges_what_computes_differently(self, signature: Signature, n: int) -> None:
        groups: dict[str, list[Genotype]] = defaultdict(list)
        for genotype in evolved(n, seed=n):
            groups[identity(SPACE, genotype, signature)].append(genotype)
        assert all(key.startswith("f2:") for key in groups)
        merged = [(group[0], other) for group in groups.values() for other in group[1:]]
        for first, second in merged:
            assert compute_the_same(first, second, signature), f"false merge: {first} and {second}"
        assert len(merged) < 0.05 * n

    def test_every_weight_shows(self) -> None:
        """No difference can vanish on its way to the output: each matrix moves the hashed numbers."""
        # on maps of more than one pixel: with one token to look at, attention never depends on its query
        for genotype in convnets(6, seed=2):
            seen = take_examination(SPACE, genotype, FASHION)
            tool = evidence.prober(seen, SPACE, genotype, FASHION)
            first = tool.first()
            keys: list[object] = list(zip(first.roles, tool.ranks(first.roles), strict=True))
            inputs = probe(2, tool.signature, 1)
            before = evidence._quantised(tool.second(keys, inputs)[0])
            for place, shape in enumerate(tool.shapes):
                if len(shape) > 1:
                    others = [("other", key) if at == place else key for at, key in enumerate(keys)]
                    after = evidence._quantised(tool.second(others, inputs)[0])
                    assert before is not None and after is not None
                    moved = max(abs(one - other) for one, other in zip(before, after, strict=True))
                    assert moved > 1000, f"weight {place} of {shape} moves the numbers by {moved}: {genotype}"

    def test_rounds_away_the_noise_of_last_bits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        genotypes = convnets(25, seed=3)
        before = [identity(SPACE, genotype, DIGITS) for genotype in genotypes]
        generator = torch.Generator().manual_seed(0)
        for name in ("weights", "common_weights"):
            exact = getattr(evidence, name)

            def shaken(*args: object, exact: Callable[..., Tensor] = exact) -> Tensor:
                value = exact(*args)
                return value * (1 + 1e-15 * torch.randn(value.shape, dtype=value.dtype, generator=generator))

            monkeypatch.setattr(evidence, name, shaken)
        assert [identity(SPACE, genotype, DIGITS) for genotype in genotypes] == before


class TestEqualInAllProcesses:
    def test_here_and_elsewhere(self) -> None:
        script = (
            "import json, sys\n"
            "from cambrian.sandbox.examination.identity import identity\n"
            "from cambrian.search_spaces import SPACES, Signature\n"
            "space = SPACES.create('convnet')\n"
            "genotypes = json.load(sys.stdin)\n"
            "signature = Signature(input_shape=(1, 28, 28), n_outputs=10)\n"
            "for genotype in reversed(genotypes):\n"
            "    print(identity(space, space.validate(genotype), signature))\n"
        )
        genotypes = convnets(12, seed=4)
        done = subprocess.run(
            [sys.executable, "-P", "-c", script], input=json.dumps(genotypes), text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        here = [identity(SPACE, genotype, FASHION) for genotype in reversed(genotypes)]
        assert done.stdout.split() == here

    def test_after_a_check_and_on_its_own(self) -> None:
        for genotype in convnets(10, seed=5):
            alone = identity(SPACE, genotype, DIGITS)
            check(SPACE, genotype, DIGITS, 64)
            assert identity(SPACE, genotype, DIGITS) == alone

    def test_whatever_the_random_state_which_it_leaves_alone(self) -> None:
        genotype = next(g for g in convnets(50, seed=6) if g["head"]["dropout"] > 0)
        found = set()
        for seed in range(3):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            found.add(identity(SPACE, genotype, DIGITS))
            assert torch.equal(torch.get_rng_state(), before)
        assert len(found) == 1

    def test_in_many_threads_at_once(self) -> None:
        genotypes = [g for g in convnets(60, seed=7) if g["head"]["dropout"] > 0][:12]
        wanted = [identity(SPACE, genotype, DIGITS) for genotype in genotypes]
        found: dict[int, list[str]] = {}

        def work(number: int) -> None:
            found[number] = [identity(SPACE, genotype, DIGITS) for genotype in genotypes]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(found.values()) == [wanted] * 4

    def test_gradients_stay_switched_on(self) -> None:
        identity(SPACE, convnets(1)[0], DIGITS)
        assert torch.is_grad_enabled()

    def test_takes_milliseconds(self) -> None:
        times = []
        for genotype in convnets(30):
            check(SPACE, genotype, DIGITS, 64)
            started = time.thread_time()
            identity(SPACE, genotype, DIGITS)
            times.append(time.thread_time() - started)
        assert sorted(times)[15] < 0.05  # 6 ms measured


def convnet(*stages: dict, **parts: dict) -> str:
    data = {"stem": {}, "head": {}, **parts, "stages": list(stages)}
    return identity(SPACE, SPACE.validate(data), DIGITS)


class TestMerges:
    """Written differently, but the same."""

    def test_one_stage_of_two_blocks_and_two_of_one(self) -> None:
        one, two = {"block": "conv", "width": 16}, {"block": "conv", "width": 16, "depth": 2}
        assert convnet(one, one) == convnet(two)
        assert convnet(one, one) != convnet(one)

    def test_pools_of_a_map_of_one_pixel(self) -> None:
        halve = {"block": "separable", "width": 16, "downsample": "first"}
        ids = {pool: convnet(halve, halve, halve, head={"pool": pool}) for pool in ("avg", "max", "grid")}
        assert len(set(ids.values())) == 1
        larger = {pool: convnet(halve, halve, head={"pool": pool}) for pool in ("avg", "max", "grid")}
        assert len(set(larger.values())) == 3

    def test_parameters_created_in_another_order_under_other_names(self) -> None:
        class Forwards(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 10)

            def forward(self, x: Tensor) -> Tensor:
                return self.second(self.first(x).relu())

        class Backwards(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.last, self.begin = nn.Linear(6, 10), nn.Linear(6, 6)

            def forward(self, x: Tensor) -> Tensor:
                return self.last(functional.relu(self.begin(x), inplace=True))

        assert toy(Forwards) == toy(Backwards, name="other")
        assert toy(Forwards) == toy(lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 10)))

    def test_branches_of_a_sum_in_another_order(self) -> None:
        def make(turned: bool) -> nn.Module:
            small, large = nn.Conv2d(3, 10, 1), nn.Conv2d(3, 10, 3, padding=1)

            def forward(m: nn.Module, x: Tensor) -> Tensor:
                parts = [m.small(x), m.large(x)]
                return (parts[1] + parts[0] if turned else parts[0] + parts[1]).relu().mean((2, 3))

            return Apply(
                forward, **({"large": large, "small": small} if turned else {"small": small, "large": large})
            )

        assert toy(lambda: make(False), PICTURE) == toy(lambda: make(True), PICTURE)

    def test_computations_that_cancel(self) -> None:
        def body(extra: Callable[[Tensor], Tensor]) -> nn.Module:
            return Apply(
                lambda m, x: m.out(extra(m.inner(x)).relu()), inner=nn.Linear(6, 8), out=nn.Linear(8, 10)
            )

        plain = toy(lambda: body(lambda x: x))
        assert toy(lambda: body(lambda x: x.flip(0).flip(0))) == plain
        assert toy(lambda: body(lambda x: x.neg().neg())) == plain

    def test_activations_of_two_names(self) -> None:
        assert toy(lambda: layers(nn.ELU())) == toy(lambda: layers(nn.CELU(alpha=1.0)))


def layers(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 32), *between, nn.Linear(32, 10))


def scaled(scale: float) -> nn.Module:
    module = layers(nn.ReLU())
    with torch.no_grad():
        module[0].weight.mul_(scale)
    return module


def frozen() -> nn.Module:
    module = layers(nn.ReLU())
    module[0].bias.requires_grad_(False)
    return module


def constant(value: float) -> nn.Module:
    module = layers(nn.ReLU())
    module.register_parameter("scale", nn.Parameter(torch.full((10,), value)))
    return Apply(lambda m, x: m.body(x) * m.body.scale, body=module)


def held_back() -> nn.Module:
    return Apply(lambda m, x: m.out(torch.no_grad()(m.a)(x)), a=nn.Linear(6, 8), out=nn.Linear(8, 10))


class ByMode(nn.Module):
    def __init__(self, training: float, evaluation: float) -> None:
        super().__init__()
        self.factors = training, evaluation

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors[0 if self.training else 1]


class Gate(nn.Module):
    """A gate whose narrow rectified layer often is dead for a given set of weights."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.pool, self.narrow, self.wide = pool, nn.Conv2d(10, 1, 1), nn.Conv2d(1, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.amax((2, 3), keepdim=True) if self.pool == "max" else x.mean((2, 3), keepdim=True)
        return x * self.wide(self.narrow(-3 * pooled).relu()).sigmoid()


def picture(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 10, 3), *between, nn.AdaptiveAvgPool2d(1), nn.Flatten())


AVERAGE = GlobalPool("avg")
DIFFERENT: dict[str, tuple[Signature, list[Callable[[], nn.Module]]]] = {
    "activations": (
        ROW,
        [
            lambda kind=kind: layers(kind())
            for kind in (
                nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
                nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Softplus, nn.Softsign,
                nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink,
            )
        ]
        + [lambda: layers(nn.GELU(approximate="tanh")), lambda: layers(nn.LeakyReLU(0.011))],
    ),
    "dropout rates": (
        ROW,
        [lambda rate=rate: layers(nn.ReLU(), nn.Dropout(rate)) for rate in (0.0, 0.001, 0.1, 0.11, 0.5)],
    ),
    "dropout places": (
        ROW,
        [
            lambda: layers(nn.GELU(), nn.Dropout(0.2)),
            lambda: layers(nn.Dropout(0.2), nn.GELU()),
            lambda: layers(nn.GELU(), nn.AlphaDropout(0.2)),
            lambda: nn.Sequential(nn.Dropout(0.2), layers(nn.GELU())),
        ],
    ),
    "norms": (
        PICTURE,
        [
            lambda: picture(nn.BatchNorm2d(10), nn.ReLU()),
            lambda: picture(nn.BatchNorm2d(10, momentum=0.2), nn.ReLU()),
            lambda: picture(nn.BatchNorm2d(10, eps=1.1e-5), nn.ReLU()),
            lambda: picture(nn.BatchNorm2d(10, track_running_stats=False), nn.ReLU()),
            lambda: picture(nn.InstanceNorm2d(10, affine=True), nn.ReLU()),
            lambda: picture(nn.InstanceNorm2d(10, affine=True, track_running_stats=True), nn.ReLU()),
            lambda: picture(
                nn.InstanceNorm2d(10, affine=True, track_running_stats=True, momentum=0.2), nn.ReLU()
            ),
            lambda: picture(nn.GroupNorm(1, 10), nn.ReLU()),
            lambda: picture(nn.GroupNorm(2, 10), nn.ReLU()),
            lambda: picture(nn.GroupNorm(2, 10, eps=2e-5), nn.ReLU()),
            lambda: picture(nn.ReLU(), nn.BatchNorm2d(10)),
        ],
    ),
    "pools and paddings": (
        PICTURE,
        [
            lambda: picture(nn.MaxPool2d(2)),
            lambda: picture(nn.AvgPool2d(2)),
            lambda: picture(nn.AvgPool2d(2, padding=1)),
            lambda: picture(nn.AvgPool2d(2, padding=1, count_include_pad=False)),
            lambda: picture(nn.MaxPool2d(2, stride=1)),
            lambda: picture(nn.MaxPool2d(3, stride=2, padding=1)),
            *(
                lambda options=options: nn.Sequential(nn.Conv2d(3, 10, 3, **options), nn.ReLU(), AVERAGE)
                for options in (
                    {"padding": 1},
                    {"padding": 1, "padding_mode": "reflect"},
                    {"padding": 1, "padding_mode": "circular"},
                    {"dilation": 2},
                    {"stride": 2},
                )
            ),
        ],
    ),
    "initialisation": (
        ROW,
        [
            lambda: layers(nn.ReLU()),
            lambda: scaled(0.5),
            lambda: scaled(0.501),
            lambda: constant(1.0),
            lambda: constant(1e-6),
            lambda: constant(2e-6),
        ],
    ),
    "what is trained": (ROW, [lambda: layers(nn.ReLU()), frozen]),
    "training and evaluation": (
        ROW,
        [
            lambda pair=pair: layers(nn.ReLU(), ByMode(*pair))
            for pair in ((1, 1), (1, 0.5), (0.5, 1), (0.5, 0.5))
        ],
    ),
    "behind a dead layer": (
        PICTURE,
        [lambda kind=kind: picture(nn.ReLU(), Gate(kind)) for kind in ("max", "avg")],
    ),
    "order of layers of one shape": (
        ROW,
        [
            lambda: layers(nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.GELU()),
            lambda: layers(nn.ReLU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32), nn.Tanh()),
            lambda: layers(nn.Tanh(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.GELU()),
        ],
    ),
    "tables computed by the constructor": (
        ROW,
        [lambda shift=shift: Shifted(shift) for shift in (0.0, 1.0, 1.00001)],
    ),
}  # fmt: skip


class Shifted(nn.Module):
    def __init__(self, shift: float) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(32) * shift)
        self.first, self.last = nn.Linear(6, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x) + 0.1 * self.table))


class TestKeepsApart:
    """The same parameters, and often the same outputs for most inputs, but not the same candidate."""

    @pytest.mark.parametrize("case", DIFFERENT)
    def test_what_differs(self, case: str) -> None:
        signature, makers = DIFFERENT[case]
        ids = [toy(make, signature, name=f"n{n}") for n, make in enumerate(makers)]
        same = [(i, j) for i in range(len(ids)) for j in range(i) if ids[i] == ids[j]]
        assert not same
        assert ids == [toy(make, signature, name=f"n{n}") for n, make in enumerate(makers)]
        if case != "behind a dead layer":
            assert all(each.startswith("f2:") for each in ids)

    def test_spaces_versions_and_signatures(self) -> None:
        def make() -> nn.Module:
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))

        space, renamed, changed = (ToySpace(it=make) for _ in range(3))
        renamed.name, changed.version = "other", "2"
        ids = [identity(each, {"of": "it"}, PICTURE) for each in (space, renamed, changed)]
        ids.append(identity(space, {"of": "it"}, Signature(input_shape=(3, 7, 7), n_outputs=10)))
        assert len(set(ids)) == 4

    def test_dropout_of_convnets(self) -> None:
        stage = {"block": "conv", "width": 16}
        assert len({convnet(stage, head={"dropout": rate}) for rate in (0.0, 0.1, 0.2, 0.3, 0.5)}) == 5


def test_a_hash_means_today_what_it_meant_when_it_was_pinned() -> None:
    """Whoever changes these changes the method: then the prefix has to change as well."""
    digits = Signature(input_shape=(1, 8, 8), n_outputs=10)
    pinned = {
        ("convnet", "two-layer-cnn"): "f2:4eeafbd7bb96803eee424510d4cba5d0",
        ("cell", "resnet-cell"): "f2:4c4faca84f53aecc3a867eb484372926",
    }
    for (name, baseline), expected in pinned.items():
        space = SPACES.create(name)
        assert identity(space, space.validate(space.baselines()[baseline]), digits) == expected
