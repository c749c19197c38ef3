"""From a folder of fields, NetCDF, GRIB or Zarr, to a manifest that a person can edit.

Offers `find_containers` and `set_up_fields`, which `scivid data init` calls.
"""

from featcache.data.own_fields.proposing import find_containers as find_containers
from featcache.data.own_fields.setting_up import set_up_fields as set_up_fields
