"""Licences as the catalogue and the store have them."""

from dataclasses import replace

from featcache.backbones.catalogue import BACKBONES
from featcache.sharing.terms import terms_of
from featcache.spec import SHUFFLED
from featcache.store.feature_store import FeatureStore


def named(store: FeatureStore, backbone: str) -> list[str]:
    header = replace(store.header, attrs={**store.attrs, "backbone": backbone})
    return [str(one) for one in terms_of(header)]


def test_registered_weights_are_as_the_catalogue_says(stores: dict[str, FeatureStore]) -> None:
    weights, data = named(stores["train"], "videomae_b")
    assert weights == (
        "weights a tiny model, by the Multimedia Computing Group of Nanjing University: "
        "licence CC-BY-NC-4.0, NOT FOR COMMERCIAL USE, https://huggingface.co/MCG-NJU/videomae-base"
    )
    assert data == "data Flies: licence CC0-1.0, https://example.org/flies, cite: A. Fly, 2020"
    assert named(stores["train"], f"videomae_b{SHUFFLED}")[0] == weights


def test_what_is_given_after_acceptance_has_to_be_accepted(stores: dict[str, FeatureStore]) -> None:
    header = replace(stores["train"].header, attrs={**stores["train"].attrs, "backbone": "dinov3_b"})
    assert BACKBONES["dinov3_b"].release.gated  # type: ignore[union-attr]
    weights, _ = terms_of(header)
    assert (weights.must_accept, weights.licence) == ("yes", "DINOv3 License")
    assert "licence DINOv3 License, to be accepted first, https://" in str(weights)


def test_own_weights_are_as_their_file_says_and_none_need_none(stores: dict[str, FeatureStore]) -> None:
    assert named(stores["train"], "mine")[0] == "weights a tiny model: licence MIT"
    assert [line.split()[0] for line in named(stores["train"], "resize")] == ["data"]
    unsaid = replace(stores["train"].header, provenance={})
    assert [one.of for one in terms_of(unsaid)] == ["weights"]
