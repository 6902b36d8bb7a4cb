//! `tandem doctor`: looks at all that has to be right for commands to work, and says what to do about what is not.

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use serde_json::json;
use tandem_client::{Client, Error, ServerInfo, Settings};

use crate::{clock, control_plane::ControlPlane, exit::Failure, run::Context};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A token that ends within this is told of.
const SOON: Duration = Duration::from_secs(3_600);
/// Of a full inbox, what is told of.
const NEARLY: f64 = 0.8;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// Commands work, and somebody should look.
    Look,
    Wrong,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Look => "look",
            Self::Wrong => "wrong",
        }
    }
}

struct Finding {
    what: &'static str,
    verdict: Verdict,
    text: String,
    /// What to do; empty: nothing.
    next: String,
}

fn fine(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Fine, text: text.into(), next: String::new() }
}

fn look(what: &'static str, text: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Look, text: text.into(), next: next.into() }
}

fn wrong(what: &'static str, text: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Wrong, text: text.into(), next: next.into() }
}

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let mut findings = vec![files(context)];
    let settings = Settings { attempts: 2, request_timeout: PATIENCE, ..context.settings.clone() };
    match Client::with_settings(settings) {
        Ok(client) => broker(context, &client, &mut findings).await,
        Err(error) => findings.push(wrong("broker", error.to_string(), "give its address: --server URL")),
    }
    findings.push(plane(context).await);
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            let Finding { what, verdict, text, next } = finding;
            let row = vec![(*what).to_owned(), verdict.word().to_owned(), text.clone(), next.clone()];
            (json!({"check": what, "verdict": verdict.word(), "text": text, "next": next}), row)
        })
        .collect();
    context.output.rows(&["CHECK", "VERDICT", "", "NEXT"], &rows)?;
    let is_wrong = findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
    if is_wrong == 0 {
        return Ok(());
    }
    Err(Failure::failed("NOT_WELL", format!("{is_wrong} of {} checks found something wrong", findings.len())))
}

fn files(context: &Context) -> Finding {
    let from = context.named.as_ref().map_or("no context".to_owned(), |name| format!("context {name}"));
    match context.readable() {
        Ok(()) => fine("settings", format!("{from}; broker {}, workspace {}", context.server, context.workspace)),
        Err(failure) => {
            wrong("settings", failure.to_string(), "tandem context show tells where each setting comes from")
        }
    }
}

/// What went wrong, and what to do.
fn refused(what: &'static str, error: &Error) -> Finding {
    let next = Failure::from(error.clone()).next().unwrap_or_default();
    wrong(what, format!("{} ({error})", error.reason()), next)
}

async fn broker(context: &Context, client: &Client, findings: &mut Vec<Finding>) {
    let began = clock::now();
    let info = match client.server_info().await {
        Ok(info) => info,
        Err(error) => {
            findings.push(refused("broker", &error));
            return;
        }
    };
    let took = clock::now().duration_since(began).unwrap_or_default();
    let own = env!("CARGO_PKG_VERSION");
    let text = format!("version {}, node {}, answered in {} ms", info.version, info.node_id, took.as_millis());
    findings.push(if info.version == own {
        fine("broker", text)
    } else {
        look("broker", text, format!("this command is version {own}: use those that belong together"))
    });
    findings.push(nodes(&info));
    findings.push(shards(&info));
    match client.caller().await {
        Ok(caller) => {
            let bound = [&caller.workspace_id, &caller.sandbox_id].map(String::as_str).join(" ");
            let bound = if bound.trim().is_empty() { String::new() } else { format!(", bound to {}", bound.trim()) };
            let text = format!("{:?}, {}{bound}", caller.subject, caller.roles.join(" "));
            let ends = caller.expire_time.and_then(|time| SystemTime::try_from(time).ok());
            let left = ends.map(|ends| ends.duration_since(clock::now()).unwrap_or_default());
            findings.push(match left.filter(|left| *left < SOON) {
                Some(left) => {
                    let minutes = left.as_secs() / 60;
                    look("caller", format!("{text}; for {minutes} minutes more"), "tandem token renew --keep")
                }
                None => fine("caller", text),
            });
        }
        Err(error) => findings.push(refused("caller", &error)),
    }
    findings.push(workspace(context, client, &info).await);
}

fn nodes(info: &ServerInfo) -> Finding {
    let lost: Vec<_> = info.members.iter().filter(|member| !member.connected).collect();
    match lost.as_slice() {
        [] if info.members.len() < 2 => fine("nodes", "one: what it loses is lost"),
        [] => fine("nodes", format!("{}, all connected", info.members.len())),
        lost => {
            let names: Vec<_> = lost.iter().map(|member| format!("{} ({})", member.node_id, member.detail)).collect();
            let text = format!("{} of {} are not connected: {}", lost.len(), info.members.len(), names.join(", "));
            look("nodes", text, "tandem cluster status")
        }
    }
}

fn shards(info: &ServerInfo) -> Finding {
    let without: Vec<_> =
        info.shards.iter().filter(|shard| shard.leader_node_id == 0).map(|shard| shard.shard_id).collect();
    if without.is_empty() {
        return fine("shards", format!("{}, each with a leader", info.shards.len()));
    }
    let next = "wait a second and look again; then tandem cluster status";
    wrong("shards", format!("nobody leads {without:?}: their workspaces cannot be used"), next)
}

async fn workspace(context: &Context, client: &Client, info: &ServerInfo) -> Finding {
    let name = context.workspace.as_str();
    if let Err(error) = client.workspaces().get(name).await {
        return refused("workspace", &error);
    }
    let sandboxes: Vec<_> = match client.registry(name).list().try_collect().await {
        Ok(sandboxes) => sandboxes,
        Err(error) => return refused("workspace", &error),
    };
    let usual = info.limits.as_ref().map_or(0, |limits| limits.max_inbox_messages);
    let full: Vec<_> = sandboxes
        .iter()
        .filter(|one| {
            let own = one.inbox_limits.as_ref().map_or(0, |limits| limits.max_messages);
            let most = if own > 0 { own } else { usual };
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = one.pending_messages as f64 / most.max(1) as f64;
            share >= NEARLY
        })
        .map(|one| one.sandbox_id.as_str())
        .collect();
    let dead: u64 = sandboxes.iter().map(|one| one.dead_letters).sum();
    let text = format!("{name:?}, {} sandboxes", sandboxes.len());
    if !full.is_empty() {
        return look(
            "workspace",
            format!("{text}; nearly full: {}", full.join(", ")),
            format!("tandem sandbox show {}", full[0]),
        );
    }
    if dead > 0 {
        return look("workspace", format!("{text}; {dead} dead letters"), "tandem dlq list");
    }
    fine("workspace", text)
}

async fn plane(context: &Context) -> Finding {
    const WHAT: &str = "control plane";
    let found = match ControlPlane::of(context) {
        Ok(plane) => tokio::time::timeout(PATIENCE, plane.get("/workspaces?limit=1")).await,
        Err(failure) => Ok(Err(failure)),
    };
    match found {
        Ok(Ok(_)) => fine(WHAT, context.control_plane.clone()),
        Ok(Err(failure @ Failure::Problem(_))) => wrong(WHAT, failure.to_string(), failure.next().unwrap_or_default()),
        // Many brokers have none.
        Ok(Err(failure)) => {
            look(WHAT, failure.to_string(), "needed for sandboxes in containers only: --control-plane URL")
        }
        Err(_) => look(WHAT, format!("no answer within {PATIENCE:?}"), "look at its log"),
    }
}
