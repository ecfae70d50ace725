import beartype

check_types = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
"""Checks annotations during the tests (pyproject.toml); an int may stand for a float (PEP 484)."""
