-- The log: what was received and is not yet known to be stored. AUTOINCREMENT, because an offset must never be
-- given twice, not even after the table was emptied.
CREATE TABLE IF NOT EXISTS records (
  offset INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  appended_at INTEGER NOT NULL,
  value BLOB NOT NULL
) STRICT;

-- One row: the identity of this file, so that a position in another log is not taken for one in this.
CREATE TABLE IF NOT EXISTS log_identity (id TEXT NOT NULL) STRICT;
