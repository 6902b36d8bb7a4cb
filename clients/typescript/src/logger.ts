/** Where this package says what it sees: `console` fits, and so does pino or winston. */
export interface Logger {
  /** Of use to whoever looks for a fault in this package. */
  debug(text: string, fields?: Record<string, unknown>): void;
  /** What happens in an ordinary run. */
  info(text: string, fields?: Record<string, unknown>): void;
  /** What somebody should look at. */
  warn(text: string, fields?: Record<string, unknown>): void;
  /** What ended the work. */
  error(text: string, fields?: Record<string, unknown>): void;
}

const nothing = () => {};

/** Says nothing. */
export const silentLogger: Logger = { debug: nothing, info: nothing, warn: nothing, error: nothing };

/** The default: warnings and errors on the console, because a library that chats on standard output is in the way. */
export const defaultLogger: Logger = {
  debug: nothing,
  info: nothing,
  warn: (text, fields) => console.warn(...line(text, fields)),
  error: (text, fields) => console.error(...line(text, fields)),
};

function line(text: string, fields?: Record<string, unknown>): unknown[] {
  return fields === undefined ? [`aintandem: ${text}`] : [`aintandem: ${text}`, fields];
}
