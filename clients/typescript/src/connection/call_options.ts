/** What a caller may say about one call. */
export interface CallOptions {
  /** For all tries together, in milliseconds. Default: `requestTimeoutMs` of the client. */
  timeoutMs?: number;
  /** Gives up on the answer; the call may have been carried out all the same. */
  signal?: AbortSignal;
}
