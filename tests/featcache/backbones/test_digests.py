"""Digests of released files: whole, of files that are looked for, and taken over by the catalogue."""

import re

from featcache.backbones import BACKBONES
from featcache.backbones.digests import KNOWN, RELEASED
from featcache.backbones.release import WEIGHT_FILES


def test_every_digest_is_one_of_a_file_that_its_release_has() -> None:
    for name, known in KNOWN.items():
        release = BACKBONES[name].release
        assert release is not None
        assert (release.digests, release.revision) == (known.sha256, known.revision)
        # A server without commits has the address only.
        assert re.fullmatch("[0-9a-f]{40}" if release.hub_id else "main", known.revision)
        assert set(known.sha256) <= {*release.files, *WEIGHT_FILES}
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in known.sha256.values())
    assert len(RELEASED) == sum(len(known.sha256) for known in KNOWN.values()), "no two files are alike"
