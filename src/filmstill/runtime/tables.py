"""Parquet tables."""

from pathlib import Path

import pandas as pd

from filmstill.errors import FilmstillError
from filmstill.runtime.files import replacing


def write_table(path: Path | str, table: pd.DataFrame) -> None:
    """Write a parquet table atomically, without its index."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a parquet table. Raises FilmstillError for a missing or damaged file and for missing columns."""
    if not path.is_file():
        raise FilmstillError(f"{path}: no such file; the stage that makes it has not run (dvc repro)")
    try:
        return pd.read_parquet(path, columns=columns)
    except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
        raise FilmstillError(f"{path}: not a whole parquet table ({str(error).splitlines()[0]})") from error
