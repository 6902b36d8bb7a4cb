/** What the broker acknowledged: the message is durable on a majority of nodes. */
export interface Receipt {
  /** As given, or the broker's `seq-<sequence>`. Empty for a message without an id that is held for approval. */
  id: string;
  /** Position in the log of the workspace; 0 while the message is held for approval. */
  sequence: number;
  /** When it was committed. */
  serverTime: Date;
  /** It had been accepted before; sequence and id are those of the first time. */
  duplicate: boolean;
  /** Set when a policy holds the message: see `client.approvals`. */
  approvalId: number | undefined;
}
