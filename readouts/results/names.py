"""Names of runs that people can say: the run's own digits, spelled as syllables.

Sixteen bits become five letters, consonants and vowels in turn (Wilkerson, A Proposal for Proquints, 2009),
so `9693d2e333be` is `nipig-tarog-gavuv`: nothing has to be kept, and the beginning of a name is that of a
run. Two such words are shown; as many letters as no other run shares will do.
"""

import re

CONSONANTS, VOWELS = "bdfghjklmnprstvz", "aiou"

SHOWN = 11
"""Letters of a name in tables: two words, 32 bits, of which a thousand runs hardly ever share any."""


def name_of(run: str) -> str:
    """The name of a run, given its digits; whatever is not of hexadecimal digits in fours is its own name."""
    if len(run) % 4 or not re.fullmatch(r"[0-9a-f]+", run):
        return run
    return "-".join(_word(int(run[i : i + 4], 16)) for i in range(0, len(run), 4))


def short_name_of(run: str) -> str:
    """What tables show of a name."""
    return name_of(run)[:SHOWN]


def is_named(run: str, text: str) -> bool:
    """Whether `text` is the beginning of a run's name or of its digits: three letters at least."""
    return len(text) > 2 and (run.startswith(text) or name_of(run).startswith(text))


def _word(number: int) -> str:
    """Five letters of sixteen bits: 4, 2, 4, 2 and 4 of them."""
    letters = ((CONSONANTS, 12), (VOWELS, 10), (CONSONANTS, 6), (VOWELS, 4), (CONSONANTS, 0))
    return "".join(alphabet[number >> shift & len(alphabet) - 1] for alphabet, shift in letters)
