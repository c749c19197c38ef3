"""From a folder of videos and label files to a manifest that a person can edit, and its clip lists.

Offers `set_up`, which takes `Wishes`, and `check`, which `scivid data init` calls.
"""

from featcache.data.own_videos.base import Wishes as Wishes
from featcache.data.own_videos.checking import check as check
from featcache.data.own_videos.setting_up import set_up as set_up
