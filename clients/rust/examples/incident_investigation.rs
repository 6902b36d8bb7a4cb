//! An incident, and four specialists who look into it at once: logs, metrics, deployments and the network.
//!
//! The lead asks each by capability, tells all what comes of it, and puts the findings together; a specialist that does not
//! answer in time is noted as missing instead of holding up the rest.
//!
//! Run it against `make run`:  cargo run -p tandem-client --example incident_investigation [URL]

#![allow(clippy::print_stdout, reason = "what comes of it is for who runs it")]

use std::{env, error::Error, process, time::Duration};

use futures_util::{TryStreamExt as _, future::try_join_all};
use serde_json::{Value, json};
use tandem_client::{
    Agent, AgentQuery, Client, Inbox, Liveness, MessageBuilder, MessageType, Publisher, SubscribeOptions, broadcast,
    to_capability,
};

/// What each knows about, what it finds, and how sure it is.
const SPECIALISTS: [(&str, &str, f64); 4] = [
    ("logs", "timeouts towards the database from 12:04 on", 0.6),
    ("metrics", "connections to the database at their limit since 12:03", 0.8),
    ("deployments", "version 41 of the shop was deployed at 12:02", 0.9),
    ("network", "nothing unusual", 0.3),
];

struct Finding {
    area: &'static str,
    text: String,
    confidence: f64,
}

struct Report {
    specialists: usize,
    cause: String,
    findings: Vec<Finding>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8001".to_owned()))?;
    // A workspace of its own: nobody else hears the broadcast.
    let workspace = format!("incident-{}", process::id());
    client.workspaces().create(workspace.as_str()).await?;
    let registry = client.registry(workspace.as_str());
    registry.register_with_agents("incident-lead", Vec::new()).await?;
    let mut team = Vec::new();
    for (area, finding, confidence) in SPECIALISTS {
        let (name, capability) = (format!("specialist-{area}"), format!("investigate:{area}"));
        let agent = Agent { name: name.clone(), role: "specialist".into(), capabilities: vec![capability] };
        registry.register_with_agents(name.as_str(), vec![agent]).await?;
        let inbox = client.inbox(workspace.as_str(), name, SubscribeOptions::default()).await?;
        let answer = json!({"area": area, "finding": finding, "confidence": confidence}).to_string();
        team.push(specialist(client.publisher(workspace.as_str()), area, answer, inbox));
    }
    // Whoever fails ends all.
    let (mut told, report) = tokio::try_join!(try_join_all(team), lead(&client, &workspace))?;
    client.workspaces().delete(workspace).await?;

    println!("{} specialists; the cause: {}", report.specialists, report.cause);
    for finding in report.findings {
        println!("  {:12} {}", finding.area, finding.text);
    }
    told.sort();
    println!("{}", told.join("\n"));
    Ok(())
}

async fn lead(client: &Client, workspace: &str) -> Result<Report, Box<dyn Error>> {
    let query =
        AgentQuery { role: Some("specialist".into()), liveness: Some(Liveness::Online), ..AgentQuery::default() };
    let present: Vec<_> = client.registry(workspace).discover(query).try_collect().await?;
    let publisher = client.publisher(workspace);
    let areas = SPECIALISTS.into_iter().map(|(area, ..)| area).chain(["astrology"]);
    let findings = try_join_all(areas.map(|area| ask(&publisher, area))).await?;
    let surest = findings.iter().max_by(|one, other| one.confidence.total_cmp(&other.confidence));
    let cause = surest.ok_or("nobody was asked")?.text.clone();
    let conclusion = json!({ "conclusion": cause }).to_string();
    let conclusion = MessageBuilder::notification("incident-lead", broadcast(), conclusion).priority(9);
    publisher.publish(conclusion.build()).await?;
    Ok(Report { specialists: present.len(), cause, findings })
}

async fn ask(publisher: &Publisher, area: &'static str) -> Result<Finding, Box<dyn Error>> {
    let task = json!({"incident": "checkout is slow", "since": "12:04"}).to_string();
    let to = to_capability(format!("investigate:{area}"));
    let task = MessageBuilder::request("incident-lead", to, task).priority(9);
    match publisher.request(task.build(), Duration::from_secs(10)).await {
        Ok(answer) => {
            let found: Value = serde_json::from_slice(&answer.message.content)?;
            let text = found["finding"].as_str().ok_or("an answer has a finding")?.to_owned();
            Ok(Finding { area, text, confidence: found["confidence"].as_f64().unwrap_or_default() })
        }
        Err(error) => Ok(Finding { area, text: format!("no answer ({})", error.reason()), confidence: 0.0 }),
    }
}

/// Answers until it hears the conclusion, and returns what it knows then.
async fn specialist(
    publisher: Publisher,
    area: &str,
    answer: String,
    mut inbox: Inbox,
) -> Result<String, Box<dyn Error>> {
    let mut knows = String::new();
    while knows.is_empty()
        && let Some(delivery) = inbox.next().await?
    {
        let message = delivery.message();
        if message.r#type() == MessageType::Request {
            let answer = MessageBuilder::response_to(message, format!("specialist-{area}"), answer.clone());
            publisher.publish(answer.build()).await?;
        } else {
            let content: Value = serde_json::from_slice(&message.content)?;
            knows = format!("{area} knows: {}", content["conclusion"].as_str().ok_or("it has a conclusion")?);
        }
        delivery.ack().await?;
    }
    inbox.close().await?;
    Ok(knows)
}
