// What the process tells its operator: structured log lines on standard error.

export type Fields = Readonly<Record<string, unknown>>;

export interface Report {
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
}

/** For tests and tools that want silence. */
export const silentReport: Report = { debug() {}, info() {}, warn() {}, error() {} };
