//! `tandem policy`.

use std::{collections::BTreeMap, fs, path::Path, pin::pin, time::SystemTime, time::UNIX_EPOCH};

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tandem_broker::policy::{Facts, Policy, Recipient, Verdict};
use tandem_client::{Message, MessageType, Policy as PolicyState, StreamQuery, destination::Kind};

use crate::{
    args::{PolicyArgs, PolicyCommand, SimulatePolicyArgs, TestPolicyArgs},
    clock,
    commands::history,
    exit::Failure,
    output::{output_closed, time},
    run::Context,
};

/// Between two reports of how far a simulation is.
const REPORT_EVERY: u64 = 100_000;

pub(crate) async fn run(context: &Context, args: PolicyArgs) -> Result<(), Failure> {
    let policies = || Ok::<_, Failure>(context.client()?.policies(context.workspace.as_str()));
    match args.command {
        PolicyCommand::Set { file, if_revision } => {
            let json = read(&file)?;
            // Told before anything is sent, with the place in the file.
            parse(&json)?;
            changed(context, &policies()?.set(json, if_revision).await?)
        }
        PolicyCommand::Remove { if_revision } => changed(context, &policies()?.remove(if_revision).await?),
        PolicyCommand::Show => show(context, &policies()?.get().await?),
        PolicyCommand::Test(args) => test(context, &args).await,
        PolicyCommand::Simulate(args) => simulate(context, args).await,
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(|error| Failure::file(file, &error))
}

fn parse(json: &str) -> Result<Policy, Failure> {
    Policy::parse(json).map_err(|error| Failure::failed("INVALID_POLICY", error.to_string()))
}

fn state(policy: &PolicyState) -> Value {
    let written: Value = serde_json::from_str(&policy.json).unwrap_or_default();
    json!({
        "revision": policy.revision, "update_time": time(policy.update_time), "updated_by": policy.updated_by,
        "policy": written,
    })
}

fn changed(context: &Context, policy: &PolicyState) -> Result<(), Failure> {
    let what = if policy.json.is_empty() { "there is no policy any more" } else { "the policy is in force" };
    context.output.result(|| state(policy), || format!("{what}: revision {}", policy.revision))
}

fn show(context: &Context, policy: &PolicyState) -> Result<(), Failure> {
    let text = || match (policy.revision, policy.json.is_empty()) {
        (0, _) => "no policy: everybody may talk to everybody".to_owned(),
        (revision, true) => {
            format!("no policy since revision {revision}, removed by {}", policy.updated_by)
        }
        _ => policy.json.trim_end().to_owned(),
    };
    if !policy.json.is_empty() {
        context.output.note(&format!("revision {}, set by {}", policy.revision, policy.updated_by));
    }
    context.output.result(|| state(policy), text)
}

async fn test(context: &Context, args: &TestPolicyArgs) -> Result<(), Failure> {
    let json = match &args.file {
        Some(file) => read(file)?,
        None => context.client()?.policies(context.workspace.as_str()).get().await?.json,
    };
    if json.is_empty() {
        let why = "the workspace has no policy";
        return context
            .output
            .result(|| json!({ "verdict": "allow", "rule": null, "why": why }), || format!("allow: {why}"));
    }
    let policy = parse(&json)?;
    let to = match args.to.split_once(':') {
        _ if args.to == "broadcast" => Recipient::Broadcast,
        Some(("topic", name)) => Recipient::Topic(name),
        Some(("capability", name)) => Recipient::Capability(name),
        Some(("sandbox", name)) => Recipient::Sandbox(name),
        _ => Recipient::Sandbox(&args.to),
    };
    let metadata: Vec<_> = args.metadata.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
    let facts = Facts {
        from: &args.from,
        from_agent: &args.from_agent,
        to,
        capability: &args.capability,
        to_agent: &args.to_agent,
        message_type: MessageType::from(args.message_type) as u8,
        bytes: args.bytes,
        metadata: &metadata,
        time_ms: millis(args.at.unwrap_or_else(clock::now)),
    };
    let decision = policy.decide(&facts);
    let why = policy.explain(&decision);
    if decision.verdict == Verdict::Deny {
        return Err(Failure::failed("DENIED", why));
    }
    context.output.result(
        || json!({ "verdict": decision.verdict.to_string(), "rule": decision.rule.map(|rule| rule + 1), "why": why }),
        || format!("{}: {why}", decision.verdict),
    )
}

async fn simulate(context: &Context, args: SimulatePolicyArgs) -> Result<(), Failure> {
    let policy = parse(&read(&args.file)?)?;
    let (from_sequence, to_sequence) = (args.from_sequence, args.to_sequence);
    let query = StreamQuery { from_sequence, to_sequence, filter: history::filter(args.filter), follow: false };
    let log = context.client()?.history(context.workspace.as_str());
    let mut messages = pin!(log.stream_messages(query).into_stream());
    let mut unread = Box::pin(output_closed());
    let (mut judged, mut counts) = (0_u64, BTreeMap::<String, u64>::new());
    loop {
        let message = tokio::select! {
            message = messages.try_next() => message?,
            () = &mut unread => return Err(Failure::OutputClosed),
        };
        let Some(message) = message else { break };
        judged += 1;
        if judged.is_multiple_of(REPORT_EVERY) {
            context.output.note(&format!("{judged} messages judged, up to sequence {}", message.sequence));
        }
        judge(context, &policy, &message, &mut counts)?;
    }
    let refused: u64 = counts.values().sum();
    context.output.note(&format!("{refused} of {judged} messages would not go through: {counts:?}"));
    if context.output.json {
        context.output.line(&json!({ "judged": judged, "verdicts": counts }).to_string())?;
    }
    Ok(())
}

/// Prints what would become of a message, unless it goes through.
fn judge(
    context: &Context,
    policy: &Policy,
    message: &Message,
    counts: &mut BTreeMap<String, u64>,
) -> Result<(), Failure> {
    let (to, shown) = match message.destination.as_ref().and_then(|destination| destination.kind.as_ref()) {
        Some(Kind::SandboxId(name)) => (Recipient::Sandbox(name), name.clone()),
        Some(Kind::Topic(name)) => (Recipient::Topic(name), format!("topic:{name}")),
        Some(Kind::Capability(wanted)) => {
            (Recipient::Capability(&wanted.capability), format!("capability:{}", wanted.capability))
        }
        Some(Kind::Broadcast(_)) | None => (Recipient::Broadcast, "broadcast".to_owned()),
    };
    let metadata: Vec<_> = message.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let committed = message.server_time.and_then(|time| SystemTime::try_from(time).ok());
    let decision = policy.decide(&Facts {
        from: &message.from_sandbox_id,
        from_agent: &message.from_agent,
        to,
        capability: "",
        to_agent: &message.to_agent,
        message_type: message.r#type as u8,
        bytes: message.content.len() as u64,
        metadata: &metadata,
        time_ms: committed.map_or(0, millis),
    });
    if decision.verdict == Verdict::Allow {
        return Ok(());
    }
    *counts.entry(decision.verdict.to_string()).or_default() += 1;
    let (sequence, why) = (message.sequence, policy.explain(&decision));
    context.output.result(
        || {
            json!({
                "sequence": sequence, "from": message.from_sandbox_id, "to": shown,
                "verdict": decision.verdict.to_string(), "rule": decision.rule.map(|rule| rule + 1), "why": why,
            })
        },
        || format!("{sequence} {} -> {shown} {}: {why}", message.from_sandbox_id, decision.verdict),
    )
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
