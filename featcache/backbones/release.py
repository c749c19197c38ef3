"""What is told of a release of weights: by whom, under which licence, how large, in which files, from where.

`catalogue` has the values of each model, `weights.locate` looks for the files on this machine, and `download`
fetches them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weight file that transformers saves, the preferred one first."""
INDEX_FILE = "model.safetensors.index.json"
"""The file that names those of weights in several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """The weights of one model, as their authors publish them."""

    owner: str
    licence: str
    commercial: bool = True
    """Whether the licence allows commercial use."""
    n_bytes: int
    """Size of the weights, rounded: for messages, and to know a wrong answer of a server by."""
    files: tuple[str, ...] = ()
    """Names of a file that holds the whole model without a config; the first that is there is taken."""
    any_pickle: bool = False
    """Whether a torch pickle (`.pth` or `.bin`) of any name is taken where none of `files` is there."""
    config: bool = False
    """Whether the model is also taken as transformers saves it: `config.json` and one of `WEIGHT_FILES`."""
    sharded: bool = False
    """Whether those weights come in several files with an index."""
    hub_id: str | None = None
    """The repository of the Hugging Face hub that has them: with the config, or else the first of `files`."""
    revision: str = "main"
    """The commit to take, so that a later upload changes nothing; `main` where no commit was known to us."""
    gated: bool = False
    """Whether the hub gives them only to an account that has accepted the licence."""
    url: str | None = None
    """Where the first of `files` is, if not on the hub."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """File name -> sha256 in hex, of the files whose digest is known."""

    @property
    def source(self) -> str:
        """The page or the file that a person would open."""
        if self.hub_id is None:
            return self.url or "not public"
        page = f"https://huggingface.co/{self.hub_id}"
        return page if self.config else f"{page}/resolve/{self.revision}/{self.files[0]}"

    @property
    def public(self) -> bool:
        """Whether anybody can get the weights without asking."""
        return not self.gated and (self.hub_id or self.url) is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The files to get, as the authors call them; of sharded weights the index stands for all."""
        if not self.config:
            return self.files[:1]
        return CONFIG_FILE, INDEX_FILE if self.sharded else WEIGHT_FILES[0]

    @property
    def terms(self) -> str:
        """The licence, and whether it forbids commercial use."""
        return self.licence if self.commercial else f"{self.licence}, not for commercial use"

    @property
    def size(self) -> str:
        """How large the weights are, for people."""
        return f"{self.n_bytes / 1e9:.2f} GB" if self.n_bytes >= 1e9 else f"{self.n_bytes / 1e6:.0f} MB"
