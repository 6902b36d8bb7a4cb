import type { CallOptions } from "../connection/call_options.js";
import type { Caller } from "../connection/caller.js";
import { ServerService } from "../gen/aintandem/server/v1/server_service_pb.js";
import { toNumber } from "../wire_time.js";

/** A Raft group, as the node sees it. */
export interface Shard {
  /** Its number; 0 is that of keys and the cluster itself. */
  id: number;
  /** The node that leads it; 0 when no leader is known. */
  leaderNodeId: number;
  /** Rises with every election. */
  term: number;
}

/** A node of the cluster, as the node sees it that was asked. */
export interface Member {
  /** Its number in the cluster. */
  nodeId: number;
  /** Where it serves clients; empty until it was reached once. */
  serviceAddress: string;
  /** Whether it is connected right now. */
  connected: boolean;
}

/** What a request may ask for at the most. */
export interface ServerLimits {
  /** Bytes of one message with all its fields. */
  maxMessageBytes: number;
  /** Messages of one batch. */
  maxBatchMessages: number;
  /** Bytes of one batch. */
  maxBatchBytes: number;
  /** Messages that may wait in one inbox. */
  maxInboxMessages: number;
}

/** What a node of the broker says about itself. */
export interface ServerInfo {
  /** Of the broker, as in its release. */
  version: string;
  /** Of the cluster: the same on all its nodes. */
  clusterId: string;
  /** The number of the node that answers. */
  nodeId: number;
  /** `rocksdb` or `memory`. */
  storageEngine: string;
  /** Raft groups, and who leads them. */
  shards: Shard[];
  /** All nodes of the cluster, this one first; empty on a node that is alone. */
  members: Member[];
  /** What a request may ask for at the most. */
  limits: ServerLimits;
}

/** @internal */
export async function serverInfo(caller: Caller, options: CallOptions): Promise<ServerInfo> {
  const info = await caller.unary(ServerService.method.getServerInfo, {}, { ...options, repeatable: true });
  return {
    version: info.version,
    clusterId: info.clusterId,
    nodeId: toNumber(info.nodeId),
    storageEngine: info.storageEngine,
    shards: info.shards.map(({ shardId, leaderNodeId, term }) => ({
      id: shardId,
      leaderNodeId: toNumber(leaderNodeId),
      term: toNumber(term),
    })),
    members: info.members.map(({ nodeId, serviceAddress, connected }) => ({
      nodeId: toNumber(nodeId),
      serviceAddress,
      connected,
    })),
    limits: {
      maxMessageBytes: toNumber(info.limits?.maxMessageBytes ?? 0n),
      maxBatchMessages: info.limits?.maxBatchMessages ?? 0,
      maxBatchBytes: toNumber(info.limits?.maxBatchBytes ?? 0n),
      maxInboxMessages: toNumber(info.limits?.maxInboxMessages ?? 0n),
    },
  };
}
