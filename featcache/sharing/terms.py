"""Licences of what is in a store: of the weights that made its tokens, and of the data behind them."""

from collections.abc import Mapping

from featcache.backbones.catalogue import BACKBONES
from featcache.backbones.model import Model
from featcache.sharing.bundle import Terms, one_line
from featcache.spec import SHUFFLED
from featcache.store.header import StoreHeader

NO_COMMERCE = "not for commercial use"


def terms_of(header: StoreHeader) -> list[Terms]:
    """What holds for a store: of its weights as the catalogue has them, of its data as they were extracted.

    Weights that are the exporter's own are under the licence that their file states.
    """
    return [*_of_weights(header), *_of_data(header)]


def model_of(backbone: str) -> Model | None:
    """What the catalogue has of the model that made a store, frames shuffled or not."""
    return BACKBONES.get(backbone.removesuffix(SHUFFLED))


def _of_weights(header: StoreHeader) -> list[Terms]:
    title, licence = (one_line(str(header.attrs.get(key))) for key in ("backbone_title", "licence"))
    if (model := model_of(str(header.attrs.get("backbone")))) is None:
        return [Terms(of="weights", title=title, licence=licence)]
    if (release := model.release) is None:
        return []
    return [
        Terms(
            of="weights",
            title=f"{title}, by {release.owner}",
            licence=release.licence,
            restriction="" if release.commercial else NO_COMMERCE,
            must_accept="yes" if release.gated else "no",
            source=release.source,
        )
    ]


def _of_data(header: StoreHeader) -> list[Terms]:
    data = header.provenance.get("data")
    if not isinstance(data, Mapping):
        return []
    told = {key: one_line(str(value)) for key, value in data.items()}
    return [
        Terms(
            of="data",
            title=told.get("title", ""),
            licence=told.get("licence", ""),
            source=told.get("source", ""),
            citation=told.get("citation", ""),
        )
    ]
