import type { CallOptions } from "../connection/call_options.js";
import type { Caller } from "../connection/caller.js";
import { ServerService } from "../gen/aintandem/server/v1/server_service_pb.js";
import { toNumber } from "../wire_time.js";

export interface ServerInfo {
  version: string;
  clusterId: string;
  nodeId: number;
  storageEngine: string;
  /** Raft groups and who leads them; 0 when no leader is known. */
  shards: { id: number; leaderNodeId: number; term: number }[];
  /** Empty on a node that is alone. */
  members: { nodeId: number; serviceAddress: string; connected: boolean }[];
  limits: { maxMessageBytes: number; maxBatchMessages: number; maxBatchBytes: number; maxInboxMessages: number };
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
