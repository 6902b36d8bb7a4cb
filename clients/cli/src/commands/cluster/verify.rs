//! `tandem cluster verify`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tandem_client::{NodeDigest, ShardDigests, VerifyClusterResponse};

use crate::{exit::Failure, output::table, run::Context};

pub(super) async fn run(context: &Context, timeout: Duration) -> Result<(), Failure> {
    let found = context.client()?.cluster().verify(timeout).await?;
    context.output.result(|| json(&found), || text(&found))?;
    if found.agree {
        return Ok(());
    }
    let differ = found.shards.iter().filter(|shard| differs(shard)).count();
    if differ > 0 {
        let text = format!("the states of {differ} of {} shards differ between nodes", found.shards.len());
        let next = "see \"When a disk lies\" in the guide to operations; keep the data directory of the odd one out";
        return Err(Failure::Failed { code: "STATES_DIFFER", text, next: Some(next.to_owned()) });
    }
    let text = "not every node could be compared; those that could agree".to_owned();
    let next = "bring the missing nodes back and ask again".to_owned();
    Err(Failure::Failed { code: "NODES_MISSING", text, next: Some(next) })
}

fn differs(shard: &ShardDigests) -> bool {
    let mut digests = shard.nodes.iter().filter(|node| node.missing.is_empty()).map(|node| &node.digest);
    let first = digests.next();
    digests.any(|digest| Some(digest) != first)
}

/// What most nodes say; nothing where no two agree and there are several.
fn usual(shard: &ShardDigests) -> Option<&str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let found = shard.nodes.iter().filter(|node| node.missing.is_empty());
    found.for_each(|node| *counts.entry(&node.digest).or_default() += 1);
    let compared: usize = counts.values().sum();
    counts.into_iter().find(|(_, count)| count * 2 > compared).map(|(digest, _)| digest)
}

fn verdict(node: &NodeDigest, usual: Option<&str>) -> String {
    match usual {
        _ if !node.missing.is_empty() => format!("missing: {}", node.missing),
        Some(usual) if usual == node.digest => "agrees".to_owned(),
        Some(_) | None => "differs".to_owned(),
    }
}

fn json(found: &VerifyClusterResponse) -> Value {
    let shards: Vec<_> = found
        .shards
        .iter()
        .map(|shard| {
            let usual = usual(shard);
            let nodes: Vec<_> = shard
                .nodes
                .iter()
                .map(|node| {
                    json!({
                        "node_id": node.node_id, "digest": node.digest, "keys": node.keys, "bytes": node.bytes,
                        "missing": node.missing, "agrees": node.missing.is_empty() && usual == Some(&node.digest),
                    })
                })
                .collect();
            json!({ "shard_id": shard.shard_id, "index": shard.index, "agree": shard.agree, "nodes": nodes })
        })
        .collect();
    json!({ "agree": found.agree, "shards": shards })
}

fn text(found: &VerifyClusterResponse) -> String {
    let rows = found.shards.iter().flat_map(|shard| {
        let usual = usual(shard);
        shard.nodes.iter().map(move |node| {
            let digest = if node.digest.is_empty() { "-".to_owned() } else { node.digest.clone() };
            vec![
                shard.shard_id.to_string(),
                shard.index.to_string(),
                node.node_id.to_string(),
                digest,
                node.keys.to_string(),
                node.bytes.to_string(),
                verdict(node, usual),
            ]
        })
    });
    let table = table(&["SHARD", "ENTRY", "NODE", "DIGEST", "KEYS", "BYTES", "VERDICT"], rows);
    let said = if found.agree { "\n\nall nodes agree" } else { "" };
    format!("{table}{said}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node_id: u64, digest: &str) -> NodeDigest {
        let missing = if digest.is_empty() { "away".to_owned() } else { String::new() };
        NodeDigest { node_id, digest: digest.to_owned(), keys: 3, bytes: 9, missing }
    }

    fn shard(digests: [&str; 3]) -> ShardDigests {
        let nodes: Vec<_> = (1..).zip(digests).map(|(id, digest)| node(id, digest)).collect();
        let agree = digests.iter().all(|digest| *digest == digests[0] && !digest.is_empty());
        ShardDigests { shard_id: 0, index: 7, nodes, agree }
    }

    #[test]
    fn the_odd_one_out_is_named() {
        let odd = shard(["aa", "bb", "aa"]);
        assert!(differs(&odd));
        let verdicts: Vec<_> = odd.nodes.iter().map(|node| verdict(node, usual(&odd))).collect();
        assert_eq!(verdicts, ["agrees", "differs", "agrees"]);
        let all = shard(["aa", "bb", "cc"]);
        assert!(all.nodes.iter().all(|node| verdict(node, usual(&all)) == "differs"), "nobody knows who is right");
        let two = shard(["aa", "", "bb"]);
        let verdicts: Vec<_> = two.nodes.iter().map(|node| verdict(node, usual(&two))).collect();
        assert_eq!(verdicts, ["differs", "missing: away", "differs"]);
        let missing = shard(["aa", "", "aa"]);
        assert!(!differs(&missing) && differs(&two));
        let found = VerifyClusterResponse { agree: false, shards: vec![odd] };
        assert_eq!(json(&found)["shards"][0]["nodes"][1]["agrees"], false);
        assert!(text(&found).contains("differs") && !text(&found).contains("all nodes agree"));
    }
}
