//! `tandem doctor`: looks at all that has to be right for commands to work, and says what to do about what is not.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tandem_client::{Client, Error, KnownCaller, Sandbox, ServerInfo, Settings};

use super::token::lifetime;
use crate::{
    clock,
    control_plane::{ControlPlane, strange},
    exit::Failure,
    run::Context,
    settled::Origin,
};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A token that ends within this is told of, where it does not say how long it holds in all.
const SOON: Duration = Duration::from_secs(300);
/// Of the life of a token, what is told of.
const LAST: u32 = 10;
/// Of a full inbox, what is told of.
const NEARLY: f64 = 0.8;
/// One of the checks.
const PLANE: &str = "control plane";
const NOT_KNOWN: &str = "not asked: the context that says where it is cannot be read";

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// There is nothing to be looked at.
    Skipped,
    /// Commands work, and somebody should look.
    Look,
    Wrong,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Skipped => "skipped",
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

fn skipped(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Skipped, text: text.into(), next: String::new() }
}

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let mut findings = vec![files(context)];
    // What is built in is not what somebody means whose context cannot be read.
    let is_meant = |from: Origin| context.unread.is_none() || from != Origin::BuiltIn;
    let settings = Settings { attempts: 2, request_timeout: PATIENCE, ..context.settings.clone() };
    match Client::with_settings(settings) {
        _ if !is_meant(context.server_from) => findings.push(skipped("broker", NOT_KNOWN)),
        Ok(client) => broker(context, &client, &mut findings).await,
        Err(_) if context.readable().is_err() => findings.push(skipped("broker", "not asked: a file cannot be read")),
        Err(error) => findings.push(wrong("broker", error.to_string(), "give its address: --server URL")),
    }
    findings.push(if is_meant(context.control_plane_from) { plane(context).await } else { skipped(PLANE, NOT_KNOWN) });
    tell(context, &findings)
}

fn tell(context: &Context, findings: &[Finding]) -> Result<(), Failure> {
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
    if let Some(failure) = &context.unread {
        return wrong("settings", failure.to_string(), failure.next().unwrap_or_default());
    }
    let from = context.named.as_ref().map_or("no context".to_owned(), |name| format!("context {name}"));
    let text = format!("{from}; broker {}, workspace {}", context.server, context.workspace);
    // Without an address of its own, nobody means a control plane.
    let from_plane = context.withheld_from_control_plane.as_ref();
    let from_plane = from_plane.filter(|_| context.control_plane_from != Origin::BuiltIn);
    let withheld = [("broker", context.withheld_from_broker.as_ref()), (PLANE, from_plane)];
    let withheld = withheld.into_iter().filter_map(|(who, why)| Some(format!("from the {who}: {}", why?)));
    let withheld: Vec<_> = withheld.collect();
    match context.readable() {
        Ok(()) if withheld.is_empty() => fine("settings", text),
        Ok(()) => look(
            "settings",
            format!("{text}; the context's token is withheld {}", withheld.join("; ")),
            "tandem context show; to show a token there: --token-file FILE",
        ),
        Err(failure) => {
            wrong("settings", failure.to_string(), "tandem context show tells where each setting comes from")
        }
    }
}

/// What went wrong, and what to do.
fn refused(context: &Context, what: &'static str, error: &Error) -> Finding {
    let next = context.explained(Failure::from(error.clone())).next().unwrap_or_default();
    wrong(what, format!("{} ({error})", error.reason()), next)
}

async fn broker(context: &Context, client: &Client, findings: &mut Vec<Finding>) {
    let began = clock::now();
    let info = match client.server_info().await {
        Ok(info) => info,
        Err(error) => {
            findings.push(refused(context, "broker", &error));
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
    findings.push(match client.caller().await {
        Ok(caller) => known(&caller, context.token_file.as_deref()),
        Err(error) => refused(context, "caller", &error),
    });
    findings.push(workspace(context, client, &info).await);
}

/// Who somebody is, and for how long.
fn known(caller: &KnownCaller, token_file: Option<&Path>) -> Finding {
    let bound = [&caller.workspace_id, &caller.sandbox_id].map(String::as_str).join(" ");
    let bound = if bound.trim().is_empty() { String::new() } else { format!(", bound to {}", bound.trim()) };
    let text = format!("{:?}, {}{bound}", caller.subject, caller.roles.join(" "));
    let ends = caller.expire_time.and_then(|time| SystemTime::try_from(time).ok());
    let left = ends.map(|ends| ends.duration_since(clock::now()).unwrap_or_default());
    let soon = token_file.and_then(lifetime).map_or(SOON, |whole| whole / LAST);
    match left.filter(|left| *left < soon) {
        Some(left) => look(
            "caller",
            format!("{text}; for {} more", humantime::format_duration(Duration::from_secs(left.as_secs()))),
            "tandem token renew --keep, if the broker has made it (tandem token issue); else get another from its issuer",
        ),
        None => fine("caller", text),
    }
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
        return refused(context, "workspace", &error);
    }
    let sandboxes: Vec<_> = match client.registry(name).list().try_collect().await {
        Ok(sandboxes) => sandboxes,
        Err(error) => return refused(context, "workspace", &error),
    };
    let usual = info.limits.as_ref().map_or((0, 0), |limits| (limits.max_inbox_messages, limits.max_inbox_bytes));
    let full = sandboxes.iter().filter(|one| fullness(one, usual) >= NEARLY);
    let full: Vec<_> = full.map(|one| one.sandbox_id.as_str()).collect();
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

/// How full an inbox is, of messages or of bytes, whichever is more. Broadcasts and messages of topics, which count against no
/// limit, are among what is pending: it may be less full than this, never fuller.
fn fullness(one: &Sandbox, usual: (u64, u64)) -> f64 {
    let own = one.inbox_limits.as_ref().map_or((0, 0), |limits| (limits.max_messages, limits.max_bytes));
    share(one.pending_messages, own.0, usual.0).max(share(one.pending_bytes, own.1, usual.1))
}

/// What is taken of the tighter one of two limits; 0 is none.
#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(taken: u64, own: u64, usual: u64) -> f64 {
    let limit = [own, usual].into_iter().filter(|limit| *limit > 0).min();
    limit.map_or(0.0, |limit| taken as f64 / limit as f64)
}

async fn plane(context: &Context) -> Finding {
    let is_configured = context.control_plane_from != Origin::BuiltIn;
    if let Some(name) = context.named.as_ref().filter(|_| !is_configured) {
        return skipped(PLANE, format!("not configured: context {name} keeps no address of one"));
    }
    let asked = async { ControlPlane::of(context)?.get("/workspaces?limit=1").await };
    let late = |_| Err(Failure::TimedOut(format!("no answer within {PATIENCE:?}")));
    let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late);
    judged(&context.control_plane, is_configured, answer.map_err(|failure| context.explained(failure)))
}

/// What an answer of the control plane means, or that there is none.
fn judged(url: &str, is_configured: bool, answer: Result<Value, Failure>) -> Finding {
    let failure = match answer {
        Ok(answer) if answer["workspaces"].is_array() => return fine(PLANE, url),
        Ok(_) => strange(url, "no list of workspaces"),
        Err(Failure::Problem(problem)) if problem.code == "CONTROL_PLANE_ANSWER" => {
            strange(url, &format!("HTTP status {}", problem.status))
        }
        Err(failure) => failure,
    };
    let next = match failure.code() {
        "CONTROL_PLANE_UNREACHABLE" if !is_configured => {
            "needed for sandboxes in containers only: --control-plane URL".to_owned()
        }
        "TIMEOUT" => "look at its log".to_owned(),
        _ => failure.next().unwrap_or_default(),
    };
    // Many brokers have none, and nobody has said that what is there is one.
    let may_be_none = matches!(failure.code(), "CONTROL_PLANE_ANSWER" | "CONTROL_PLANE_UNREACHABLE" | "TIMEOUT");
    let verdict = if may_be_none && !is_configured { Verdict::Look } else { Verdict::Wrong };
    Finding { what: PLANE, verdict, text: failure.to_string(), next }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use tandem_client::InboxLimits;

    use super::*;
    use crate::exit::Problem;

    #[test]
    fn an_inbox_is_as_full_as_the_tighter_limit_says() {
        let fullness_of = |pending: (u64, u64), own: Option<(u64, u64)>| {
            let sandbox = Sandbox {
                pending_messages: pending.0,
                pending_bytes: pending.1,
                inbox_limits: own.map(|(max_messages, max_bytes)| InboxLimits { max_messages, max_bytes }),
                ..Sandbox::default()
            };
            (fullness(&sandbox, (100, 1_000)) * 100.0).round()
        };
        assert_eq!(fullness_of((50, 0), None), 50.0);
        assert_eq!(fullness_of((50, 900), None), 90.0, "bytes count");
        assert_eq!(fullness_of((8, 0), Some((10, 0))), 80.0);
        assert_eq!(fullness_of((90, 0), Some((1_000, 0))), 90.0, "no sandbox has more than the server allows");
        assert_eq!(fullness_of((1, 80), Some((0, 100))), 80.0);
        assert_eq!(share(5, 0, 0), 0.0, "an old server does not tell");
    }

    #[test]
    fn a_token_is_told_of_when_little_of_its_life_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        // How long it holds in all, if it says so, and from now on, in seconds.
        for (whole_s, left_s, verdict) in [
            (None, 3_000, Verdict::Fine),
            (None, 200, Verdict::Look),
            (Some(3_600), 3_000, Verdict::Fine),
            (Some(3_600), 330, Verdict::Look),
            (Some(900), 200, Verdict::Fine),
            (Some(900), 80, Verdict::Look),
        ] {
            let claims =
                whole_s.map_or_else(|| json!({}), |whole_s: u64| json!({"iat": 1_000, "exp": 1_000 + whole_s}));
            std::fs::write(&file, format!("e30.{}.x\n", URL_SAFE_NO_PAD.encode(claims.to_string()))).unwrap();
            let ends = clock::now() + Duration::from_secs(left_s);
            let caller = KnownCaller { expire_time: Some(ends.into()), ..KnownCaller::default() };
            assert_eq!(known(&caller, Some(&file)).verdict, verdict, "{whole_s:?} {left_s}");
        }
        assert_eq!(known(&KnownCaller::default(), None).verdict, Verdict::Fine);
    }

    #[test]
    fn what_answers_must_be_a_control_plane() {
        let problem = |code: &str| {
            let (code, text) = (code.to_owned(), "x".to_owned());
            let problem = Problem { status: 404, code, text, fields: Vec::new(), retry_after_s: None, next: None };
            Err(Failure::Problem(problem))
        };
        // Without an address, and with one.
        let cases = [
            (Ok(json!({"workspaces": []})), Verdict::Fine, Verdict::Fine),
            (Ok(Value::Null), Verdict::Look, Verdict::Wrong),
            (Ok(json!({"error": 1})), Verdict::Look, Verdict::Wrong),
            (Err(strange("http://p", "no JSON")), Verdict::Look, Verdict::Wrong),
            (problem("CONTROL_PLANE_ANSWER"), Verdict::Look, Verdict::Wrong),
            (problem("TOKEN_MISSING"), Verdict::Wrong, Verdict::Wrong),
            (Err(Failure::failed("CONTROL_PLANE_UNREACHABLE", "x")), Verdict::Look, Verdict::Wrong),
            (Err(Failure::TimedOut("x".to_owned())), Verdict::Look, Verdict::Wrong),
            (Err(Failure::failed("FILE_UNREADABLE", "x")), Verdict::Wrong, Verdict::Wrong),
        ];
        for (answer, without, with) in cases {
            let verdicts = [false, true].map(|is_configured| judged("http://p", is_configured, answer.clone()).verdict);
            assert_eq!(verdicts, [without, with], "{answer:?}");
        }
    }
}
