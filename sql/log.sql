-- The log: what was received and is not yet known to be stored. AUTOINCREMENT, because an offset must never be
-- given twice, not even after the table was emptied. Inserts name the offset, because the checksum covers it.
CREATE TABLE IF NOT EXISTS records (
  offset INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  appended_at INTEGER NOT NULL,
  value BLOB NOT NULL,
  -- CRC-32 of the columns before it: SQLite does not notice other bytes in a value. NULL: unknown.
  crc INTEGER
) STRICT;

-- One row: the identity of this file, so that a position in another log is not taken for one in this.
CREATE TABLE IF NOT EXISTS log_identity (id TEXT NOT NULL) STRICT;

-- One row, as JSON: the owner of the file and what is known of its leases (lib/outbox/owner.ts).
CREATE TABLE IF NOT EXISTS keeper (
  id INTEGER PRIMARY KEY,
  words TEXT NOT NULL,
  -- CRC-32 of the words.
  crc INTEGER NOT NULL
) STRICT;

-- Dead letters: what Kafka refused for good, and trades that another producer may have received too. Each record is
-- kept whole, with the reason, out of the way of the others.
CREATE TABLE IF NOT EXISTS outbox_dead (
  offset INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  appended_at INTEGER NOT NULL,
  value BLOB NOT NULL,
  -- CRC-32 of all other columns.
  crc INTEGER NOT NULL,
  refused_at INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT;
