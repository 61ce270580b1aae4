#!/usr/bin/env bash
# Python's sqlite3: commit() leaves the read transaction of a half-read cursor open, and in_transaction says there is none.
#
# Guess: a SELECT outside of a transaction reads for as long as its rows are fetched; at the latest commit() or
#   rollback(), or the end of `with connection:`, ends it. connection.in_transaction tells whether one is open.
# What happens: a cursor with rows left keeps its snapshot, whatever the connection does: after fetchone(), after
#   execute() alone, after commit(), rollback() and `with connection:`. in_transaction is False all the time, because it
#   speaks of BEGIN. Only fetching to the end, cursor.close() or the cursor's garbage collection ends it. Meanwhile no
#   checkpoint of a WAL database gets past the snapshot, and the -wal file of whoever writes grows without bound.
# Seen on: Python 3.11.7 with SQLite 3.40.1, Linux.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 - "$folder/seen.sqlite" <<'PYTHON'
import sqlite3
import sys

path = sys.argv[1]
writer = sqlite3.connect(path, isolation_level=None, timeout=0)
writer.execute("PRAGMA journal_mode = WAL")
writer.execute("CREATE TABLE t (a)")
writer.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(1_000)])
seen = []


def look(name, reader, expected):
    writer.execute("INSERT INTO t VALUES (0)")
    is_held = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 1
    print(f"{name}: in_transaction {reader.in_transaction}, the checkpoint is {'held up' if is_held else 'free'}")
    seen.append(is_held is expected and not reader.in_transaction)


reader = sqlite3.connect(path)
print(f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}")
cursor = reader.execute("SELECT a FROM t")
look("executed, nothing fetched", reader, True)
cursor.fetchone()
look("one row fetched", reader, True)
reader.commit()
look("after commit()", reader, True)
reader.rollback()
look("after rollback()", reader, True)
with reader:
    pass
look("after `with connection:`", reader, True)
cursor.close()
look("after cursor.close()", reader, False)
cursor = reader.execute("SELECT a FROM t")
cursor.fetchall()
look("all rows fetched", reader, False)
print("as described" if all(seen) else "CHANGED")
sys.exit(0 if all(seen) else 1)
PYTHON
