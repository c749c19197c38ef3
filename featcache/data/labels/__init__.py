"""Label files of annotation programs to one form: bouts, points and unknown spans of each video.

Offers `read_labels`, `Videos`, what they are read for, and `told`, what is said of them. A member of the
family is a module of `featcache.data.labels.formats`; what each owes is in `base.Importer`, what it may say
in `remarks.KINDS`.
"""

from featcache.data.labels.base import Annotations as Annotations
from featcache.data.labels.base import Choices as Choices
from featcache.data.labels.base import choices_of as choices_of
from featcache.data.labels.reading import read_labels as read_labels
from featcache.data.labels.remarks import told as told
from featcache.data.labels.videos import Videos as Videos
