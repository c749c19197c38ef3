"""Label files of annotation programs to one form: bouts, points and unknown spans of each video.

Offers `read_labels`, and `Videos`, what they are read for. A member of the family is a module of
`featcache.data.labels.formats`; what each owes is in `base.Importer`, what it may say in `remarks.KINDS`.
"""

from featcache.data.labels.base import Annotations as Annotations
from featcache.data.labels.base import Choices as Choices
from featcache.data.labels.base import choices_of as choices_of
from featcache.data.labels.reading import read_labels as read_labels
from featcache.data.labels.videos import Videos as Videos
