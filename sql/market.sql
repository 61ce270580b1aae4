-- The tables of the embedded store: the same tables and columns as on Cassandra. Times in ms, uuid as text.
CREATE TABLE IF NOT EXISTS trades (
  symbol TEXT NOT NULL,
  hour INTEGER NOT NULL,
  trade_timestamp INTEGER NOT NULL,
  uuid TEXT NOT NULL,
  price REAL NOT NULL,
  volume REAL NOT NULL,
  trade_conditions TEXT,
  ingest_timestamp INTEGER NOT NULL,
  PRIMARY KEY (symbol, hour, trade_timestamp, uuid)
) STRICT, WITHOUT ROWID;

-- The tables of lib/model/aggregates.ts. A row of trade_count 0 is not a window but the trace of a removed one: without
-- it a put below the removal's version would bring the window back. Readers leave it out.
CREATE TABLE IF NOT EXISTS running_averages_15_sec (
  symbol TEXT NOT NULL,
  hour INTEGER NOT NULL,
  window_end INTEGER NOT NULL,
  price_volume_multiply REAL NOT NULL,
  average_price REAL NOT NULL,
  vwap REAL,
  volume REAL NOT NULL,
  trade_count INTEGER NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (symbol, hour, window_end)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS candles_1_min (
  symbol TEXT NOT NULL,
  day TEXT NOT NULL,
  window_start INTEGER NOT NULL,
  open REAL NOT NULL,
  high REAL NOT NULL,
  low REAL NOT NULL,
  close REAL NOT NULL,
  volume REAL NOT NULL,
  price_volume_sum REAL NOT NULL,
  vwap REAL,
  trade_count INTEGER NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (symbol, day, window_start)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS feed_events (
  day TEXT NOT NULL,
  event_timestamp INTEGER NOT NULL,
  session TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  type TEXT NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (day, event_timestamp, session, sequence)
) STRICT, WITHOUT ROWID;

-- What could not be accepted, whole, with the reason. item = index of the trade in its message, -1 = all of it.
CREATE TABLE IF NOT EXISTS dead (
  session TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  item INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  reason TEXT NOT NULL,
  source TEXT NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (session, sequence, item)
) STRICT;
CREATE INDEX IF NOT EXISTS dead_by_receipt ON dead (received_at);

-- How far a log is stored here: (offset, metadata) of the last commit, in the same file as what it speaks of.
CREATE TABLE IF NOT EXISTS commits (
  log_id TEXT PRIMARY KEY,
  offset INTEGER NOT NULL,
  metadata TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The watchlist: one row a symbol, for a removal too. A replaced row gets a new rowid: the order of equal times.
CREATE TABLE IF NOT EXISTS tickers (
  symbol TEXT PRIMARY KEY,
  wanted INTEGER NOT NULL,
  changed_at INTEGER NOT NULL,
  changed_by TEXT NOT NULL CHECK (changed_by IN ('setting', 'operator'))
) STRICT;

-- Until when each hour of a symbol received rows (rounded up to the hour): what retention goes by.
CREATE TABLE IF NOT EXISTS trade_hours (
  symbol TEXT NOT NULL,
  hour INTEGER NOT NULL,
  ingested_until INTEGER NOT NULL,
  PRIMARY KEY (symbol, hour)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS trade_hours_by_receipt ON trade_hours (ingested_until);
