"""Data sets, splits and tasks of `data_manifest.yaml`, and of a user's own, as checked, frozen values."""

from featcache.manifest.loading import load_manifest as load_manifest
from featcache.manifest.loading import shipped_manifest as shipped_manifest
from featcache.manifest.values import KINDS as KINDS
from featcache.manifest.values import OWN_FIELDS as OWN_FIELDS
from featcache.manifest.values import OWN_VIDEOS as OWN_VIDEOS
from featcache.manifest.values import READERS as READERS
from featcache.manifest.values import Augmentation as Augmentation
from featcache.manifest.values import Dataset as Dataset
from featcache.manifest.values import Manifest as Manifest
from featcache.manifest.values import ModelKind as ModelKind
from featcache.manifest.values import Pixels as Pixels
from featcache.manifest.values import Published as Published
from featcache.manifest.values import PublishedResult as PublishedResult
from featcache.manifest.values import Split as Split
from featcache.manifest.values import Task as Task
from featcache.manifest.values import TokenSteps as TokenSteps
from featcache.manifest.values import Values as Values
from featcache.manifest.values import Windows as Windows
