"""Names of runs: the digits of the run in syllables, and its beginning will do."""

from itertools import product

from readouts.results.names import is_named, name_of, short_name_of


def test_the_scheme_is_the_published_one() -> None:
    # The examples of the proposal: addresses of four bytes.
    assert name_of("7f000001") == "lusab-babad"
    assert name_of("3f54dcc1") == "gutih-tugad"
    assert name_of("0c6e6ee8") == "bagoh-jakak" or name_of("0c6e6ee8")[:5] == name_of("0c6e")


def test_every_run_has_a_name_of_its_own_and_another_name_stays_as_it_is() -> None:
    digits = ["".join(four) for four in product("0f", "07", "1e", "89")]
    assert len({name_of(one) for one in digits}) == len(digits)
    assert short_name_of("9693d2e333be") == "nipig-tarog"
    assert name_of("sweep one") == "sweep one"


def test_a_beginning_names_a_run_in_letters_or_in_digits() -> None:
    run = "9693d2e333be"
    assert all(is_named(run, text) for text in ("nip", "nipig-ta", name_of(run), "969", run))
    assert not any(is_named(run, text) for text in ("ni", "nipog", "970", "nipig-tarog-gavuv-b"))
