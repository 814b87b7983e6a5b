"""The run-time type checker of the tests: array shapes, and ints where floats are meant."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
