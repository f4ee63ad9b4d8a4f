"""A feature cache made in this process: what the actors of `gazecore features` do."""

import functools

from gazecore.corpus.schema import Corpus
from gazecore.features.cache import CacheSettings, FeatureCache, begin_cache
from gazecore.features.extract import FeatureExtractor, commit_features
from gazecore.model.backbone import Backbone
from gazecore.results.plan import shards
from gazecore.scoring.pipeline import ReadingConfig
from gazecore.storage import Location


def make_cache(
    corpus: Corpus, backbone: Backbone, folder: str, *, mirrored: bool = False
) -> FeatureCache:
    """The cache of a corpus at display size 1024."""
    settings = CacheSettings(backbone.spec, "1024", shard_size=4, mirrored=mirrored)
    cache, _ = begin_cache(Location(folder), corpus, settings)
    extractor = FeatureExtractor(backbone, ReadingConfig(), mirrored)
    commit = functools.partial(commit_features, cache)
    done = cache.shards_done()
    for shard in shards(cache, lambda number: number not in done):
        commit(shard.number, *extractor.extract(shard.images))
    return FeatureCache(folder)
