"""Keeps the paths in the embedded database valid when its folder is moved or copied.

MLflow stores absolute locations of runs' files. After a move it would look for them at the old path and write new
ones there; after a copy, a run in the copy would write into the original.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from maskcast.progress import say
from maskcast.runner.mlflow_uri import database_file, tracking_uri

ARTIFACTS = "mlartifacts"  # folder of the runs' files, beside the database
# Columns of MLflow's tables that have such locations.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def artifact_location(database: Path) -> str:
    """Returns the location of the runs' files of an SQLite database."""
    return (database.absolute().parent / ARTIFACTS).as_uri()


def present_location(artifact_uri: str) -> str:
    """Returns where a run's files are: beside the embedded database, if they are there, else as MLflow says.

    Only what writes files updates the locations in the database, which may be mounted in two places.
    """
    database = database_file(tracking_uri())
    before, _, place = artifact_uri.rpartition(f"/{ARTIFACTS}/")
    if database is None or not before.startswith("file:"):
        return artifact_uri
    is_here = (database.absolute().parent / ARTIFACTS / place.partition("/")[0]).is_dir()
    return f"{artifact_location(database)}/{place}" if is_here else artifact_uri


def update_locations(database: Path) -> None:
    """Replaces the locations that a database has of a folder in which it was before.

    A location is replaced if the folder beside the database has files of its runs. If the database cannot be
    written, a warning says so.

    Args:
        database: an SQLite database of MLflow, or an empty file.
    """
    new, folder = artifact_location(database), database.absolute().parent / ARTIFACTS
    try:
        uri = f"{database.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True)) as connection, connection:
            old_locations = connection.execute(
                "SELECT experiment_id, artifact_location FROM experiments "
                "WHERE artifact_location LIKE ? AND artifact_location != ?",
                (f"file:///%/{ARTIFACTS}", new),
            ).fetchall()
            for experiment, old in old_locations:
                runs = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment,))
                if not any((folder / run).is_dir() for (run,) in runs):
                    continue  # it was chosen, or another folder uses the same database
                for table, column in LOCATIONS:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608  # constants
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
                before = Path(unquote(urlsplit(old).path)).parent
                say(f"tracking: {database} was in {before} before; its locations were updated")
    except sqlite3.Error as error:
        say(f"warning: {database}: locations of runs' files were not checked ({error})")
