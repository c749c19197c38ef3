"""Released weight files whose sha256 is known: what a file on this machine is held against.

Authors publish them on the Hugging Face hub only, as the `oid sha256` of large files. Each one here stands in
several public repositories, independent of each other, that pin the file of that commit or address; those of
`dinov2_vit*14_pretrain.pth` are in `scripts/conversion` of finegrain-ai/refiners, too. What is missing was
not found: such a file's digest is remembered when it is first loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """The files of one release."""

    revision: str = "main"
    """The commit of the hub's repository that has them, where they are there."""
    sha256: Mapping[str, str]
    """File name -> hex digest."""


KNOWN: dict[str, Known] = {
    "videomae_b": Known(
        revision="dc740ceda42fce44faed2ea03c6d447db72f6af9",
        sha256={"model.safetensors": "bc053ca2840a038b1068269a4eec06ca569689e9a1ed9376a5b2b8a111be5290"},
    ),
    "dinov2_s": Known(
        revision="ed25f3a31f01632728cabb09d1542f84ab7b0056",
        sha256={
            "model.safetensors": "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
            "dinov2_vits14_pretrain.pth": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        },
    ),
    "dinov2_b": Known(
        revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        sha256={
            "model.safetensors": "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
            "dinov2_vitb14_pretrain.pth": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        },
    ),
    "dinov2_l": Known(
        revision="47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
        sha256={
            "model.safetensors": "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
            "dinov2_vitl14_pretrain.pth": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        },
    ),
    "dinov2_g": Known(
        revision="611a9d42f2335e0f921f1e313ad3c1b7178d206d",
        sha256={
            "model.safetensors": "917d3c470db999d32a312f8542149be91c7cbac61ee8fb4b67ae3d82b79ce21f",
            "dinov2_vitg14_pretrain.pth": "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
        },
    ),
    "vjepa2_l": Known(
        revision="b3c1679b7c34d3255ef3547f27c7b226aefab26f",
        sha256={"model.safetensors": "25466aef85727d16546c6cf8c99f12fcfad9cbca8225d45f23685e2e025b786b"},
    ),
    "vjepa2_g": Known(
        revision="875c192b7b704b87d1e1d99345769632dd5f739a",
        sha256={"model.safetensors": "f205e77aa2ade168db6b09d4bc420d156141f64ab964278a9c181a2bdf2a232b"},
    ),
    "vjepa21_b": Known(
        sha256={
            "vjepa2_1_vitb_dist_vitG_384.pt": (
                "848a77c33cc9e6649ed2119c9bea1e2c569bcdab9539ff3e7c02ccc2959ddf4d"
            )
        },
    ),
    "dinov3_s": Known(
        revision="114c1379950215c8b35dfcd4e90a5c251dde0d32",
        sha256={"model.safetensors": "4610ad75edef83e75afdebf162d148dc628045ea6cbb83d67d4708c709c4f91d"},
    ),
    "dinov3_b": Known(
        revision="5931719e67bbdb9737e363e781fb0c67687896bc",
        sha256={"model.safetensors": "9a21ac3df0c63839d62612dda6f454d816c25611cc7a52966ed5a5a94921dc8b"},
    ),
    "dinov3_l": Known(
        revision="ea8dc2863c51be0a264bab82070e3e8836b02d51",
        sha256={"model.safetensors": "dcb2e45127cccbf1601e5f42fef165eea275c8e5213197e8dcf3f48822718179"},
    ),
    "dinov3_hplus": Known(
        revision="c807c9eeea853df70aec4069e6f56b28ddc82acc",
        sha256={"model.safetensors": "3e1d4d18b9bfa9f28fad8e9de6a783f1313532d3460efa4cd0b12521d81d1a4d"},
    ),
}
"""Registered name -> its release's files."""

RELEASED = frozenset(digest for known in KNOWN.values() for digest in known.sha256.values())
"""The digests of all of them: a file that has one is whole."""
