"""A feature cache made in this process."""

from gazecore.corpus.schema import Corpus
from gazecore.features.cache import CacheSettings, FeatureCache, begin_cache
from gazecore.features.extract import FeaturesStage
from gazecore.model.backbone import Backbone
from gazecore.shards import local
from gazecore.storage import Location
from tests.scoring import Loaded


def make_cache(corpus: Corpus, backbone: Backbone, folder: str) -> FeatureCache:
    """The cache of a corpus at display size 1024."""
    settings = CacheSettings(backbone.spec, "1024", shard_size=4)
    cache, _ = begin_cache(Location(folder), corpus, settings)
    local.run(cache, Loaded(folder, FeaturesStage(backbone, cache)))
    return FeatureCache(folder)
