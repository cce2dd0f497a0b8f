import random

from cambrian.agents.evaluator.encoding import Encoder, HasStructure, encode
from cambrian.search_spaces import SPACES, TASKS
from cambrian.search_spaces.recipes import with_recipe_genes


def test_numbers_are_features_and_sizes_of_what_matters() -> None:
    space = SPACES.create("convnet")
    genotype = space.sample(random.Random(0))
    found = encode(space, genotype)
    assert isinstance(space, HasStructure)
    assert space.features(genotype).items() <= found.numbers.items()
    assert found.numbers["live.log_params"] > 2 and found.motifs
    assert encode(space, dict(reversed(genotype.items()))) is found, "made once"


def test_proxies_join_the_numbers_and_the_space_s_own_motifs_stay() -> None:
    space = SPACES.create("convnet")
    encoder, genotype = Encoder(space), space.sample(random.Random(0))
    found = encoder(genotype, proxies={"naswot": 1.5}, motifs={"conv>relu": 1.0})
    assert found.numbers["proxy.naswot"] == 1.5
    assert found.motifs == encoder(genotype).motifs
    assert "proxy.naswot" not in encoder(genotype).numbers


def test_of_a_space_with_recipe_genes_the_architecture_s_structure_is_known() -> None:
    space = SPACES.create("convnet")
    both = with_recipe_genes(space, {"optimizer": None}, TASKS.get("digits")())
    genotype = both.sample(random.Random(0))
    found = encode(both, genotype)
    assert found.motifs == encode(space, genotype["architecture"]).motifs
    assert any("optimizer" in name for name in found.numbers)
