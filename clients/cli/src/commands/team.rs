//! `tandem up` and `tandem down`: a workspace, its policy and its sandboxes, from one file.

use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::containers::{all, text};
use crate::{
    args::{DownArgs, TeamArgs},
    clock,
    control_plane::{ControlPlane, escaped},
    exit::Failure,
    output::Output,
    run::Context,
};

/// Sandboxes that are started at once.
const AT_ONCE: usize = 4;
/// What a sandbox of a file takes over from the file and not from the control plane.
const KEEPS: [&str; 2] = ["workspace_id", "name"];

/// A file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Team {
    workspace: Workspace,
    /// As `tandem policy set` takes it.
    #[serde(default)]
    policy: Option<Value>,
    /// As `POST /api/v1/sandboxes` takes them, without the workspace.
    #[serde(default)]
    sandboxes: Vec<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Workspace {
    id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    settings: Option<Value>,
}

/// What was done with something.
struct Done {
    what: String,
    name: String,
    did: &'static str,
    seconds: f64,
}

impl Done {
    fn json(&self) -> Value {
        json!({ "kind": self.what, "name": self.name, "did": self.did, "seconds": self.seconds })
    }
}

fn read(args: &TeamArgs) -> Result<Team, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::file(&args.file, &error)
            .advised("say where the team's file is: --file FILE; docs/demo/shop.yaml is one")
    };
    let text = std::fs::read_to_string(&args.file).map_err(unreadable)?;
    let wrong = |why: String| Failure::Failed {
        code: "TEAM_FILE_INVALID",
        text: format!("{}: {why}", args.file.display()),
        next: Some("docs/demo/shop.yaml is a team's file; docs/guides/control-plane.md tells of it".to_owned()),
    };
    let team: Team = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let mut names = std::collections::HashSet::new();
    for (number, sandbox) in team.sandboxes.iter().enumerate() {
        let name = sandbox.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| wrong(format!("sandboxes[{number}] has no name")))?;
        if !names.insert(name) {
            return Err(wrong(format!("two sandboxes are called {name:?}")));
        }
        if sandbox.contains_key("workspace_id") {
            return Err(wrong(format!("sandbox {name:?} names a workspace; all are in the one of the file")));
        }
    }
    Ok(team)
}

/// Makes true what the file says. Run again it changes what differs, and nothing else.
pub(crate) async fn up(context: &Context, args: TeamArgs) -> Result<(), Failure> {
    let team = read(&args)?;
    let (plane, output) = (ControlPlane::of(context)?, context.output);
    let workspace = team.workspace.id.clone();
    let bar = progress(output, team.sandboxes.len() + 1 + usize::from(team.policy.is_some()));
    let mut done = vec![timed("workspace", &workspace, ensure_workspace(&plane, &team.workspace)).await?];
    told(output, &bar, &done[0])?;
    if let Some(policy) = &team.policy {
        let set = timed("policy", &workspace, ensure_policy(&plane, &workspace, policy)).await?;
        told(output, &bar, &set)?;
        done.push(set);
    }
    let there = all(&plane, &workspace).await?;
    let names: Vec<_> = team.sandboxes.iter().map(|one| one["name"].as_str().unwrap_or_default().to_owned()).collect();
    let mut starting = stream::iter(team.sandboxes.into_iter().map(|wanted| {
        let name = wanted["name"].as_str().unwrap_or_default().to_owned();
        let before = there.iter().find(|one| one["name"] == name.as_str()).cloned();
        let (plane, workspace) = (&plane, &workspace);
        async move {
            let ensured = timed("sandbox", &name, ensure_sandbox(plane, workspace, wanted, before)).await;
            ensured.map_err(|failure| (name, failure))
        }
    }))
    .buffer_unordered(AT_ONCE);
    let mut failed = None;
    while let Some(ensured) = starting.next().await {
        match ensured {
            Ok(one) => {
                told(output, &bar, &one)?;
                done.push(one);
            }
            // The others go on: what is up stays up.
            Err((name, failure)) => {
                bar.suspend(|| output.note(&format!("sandbox    {name}: {failure}")));
                failed.get_or_insert(failure);
            }
        }
    }
    bar.finish_and_clear();
    for one in there.iter().filter(|one| !names.contains(&text(one, "name"))) {
        output.note(&format!("sandbox    {} is not in the file, and left alone", text(one, "name")));
    }
    failed.map_or(Ok(()), Err)
}

/// Deletes the sandboxes of the file, and with it the workspace where that is wanted.
pub(crate) async fn down(context: &Context, args: DownArgs) -> Result<(), Failure> {
    let team = read(&args.team)?;
    let (plane, output) = (ControlPlane::of(context)?, context.output);
    let workspace = team.workspace.id;
    let there = match all(&plane, &workspace).await {
        Ok(there) => there,
        Err(failure) if failure.code() == "UNKNOWN_WORKSPACE" => Vec::new(),
        Err(failure) => return Err(failure),
    };
    let bar = progress(output, team.sandboxes.len());
    for wanted in &team.sandboxes {
        let name = wanted["name"].as_str().unwrap_or_default();
        let Some(one) = there.iter().find(|one| one["name"] == name) else {
            told(output, &bar, &Done { what: "sandbox".into(), name: name.into(), did: "not there", seconds: 0.0 })?;
            continue;
        };
        let path = format!("/sandboxes/{}", escaped(&text(one, "id")));
        let removing = async {
            let left = plane.ask(Method::DELETE, &path, None).await?;
            Ok(if left.is_null() { "deleted" } else { "being deleted" })
        };
        told(output, &bar, &timed("sandbox", name, removing).await?)?;
    }
    if args.workspace_too {
        let path = format!("/workspaces/{}?force=true", escaped(&workspace));
        let removing = async {
            match plane.ask(Method::DELETE, &path, None).await {
                Ok(Value::Null) => Ok("deleted"),
                Ok(_) => Ok("being deleted"),
                Err(failure) if failure.code() == "UNKNOWN_WORKSPACE" => Ok("not there"),
                Err(failure) => Err(failure),
            }
        };
        told(output, &bar, &timed("workspace", &workspace, removing).await?)?;
    }
    bar.finish_and_clear();
    Ok(())
}

fn progress(output: Output, steps: usize) -> ProgressBar {
    if output.json || output.quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} of {len}  {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

fn told(output: Output, bar: &ProgressBar, done: &Done) -> Result<(), Failure> {
    bar.inc(1);
    let text = format!("{:<10} {:<24} {:<14} {:.1} s", done.what, done.name, done.did, done.seconds);
    bar.suspend(|| output.result(|| done.json(), || text))
}

async fn timed(
    what: &str,
    name: &str,
    doing: impl Future<Output = Result<&'static str, Failure>>,
) -> Result<Done, Failure> {
    let began: Instant = clock::instant();
    let did = doing.await?;
    Ok(Done { what: what.to_owned(), name: name.to_owned(), did, seconds: began.elapsed().as_secs_f64() })
}

async fn ensure_workspace(plane: &ControlPlane, wanted: &Workspace) -> Result<&'static str, Failure> {
    let mut body = Map::new();
    let parts = [
        ("name", wanted.name.clone().map(Value::from)),
        ("description", wanted.description.clone().map(Value::from)),
        ("settings", wanted.settings.clone()),
    ];
    body.extend(parts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let path = format!("/workspaces/{}", escaped(&wanted.id));
    match plane.get(&path).await {
        Ok(there) if covers(&there, &Value::Object(body.clone())) => Ok("unchanged"),
        Ok(_) => plane.ask(Method::PATCH, &path, Some(&Value::Object(body))).await.map(|_| "changed"),
        Err(failure) if failure.code() == "UNKNOWN_WORKSPACE" => {
            body.insert("id".to_owned(), wanted.id.clone().into());
            body.entry("name").or_insert_with(|| wanted.id.clone().into());
            plane.post("/workspaces", &Value::Object(body)).await.map(|_| "created")
        }
        Err(failure) => Err(failure),
    }
}

async fn ensure_policy(plane: &ControlPlane, workspace: &str, wanted: &Value) -> Result<&'static str, Failure> {
    let path = format!("/policies?workspace_id={}", escaped(workspace));
    let there = plane.get(&path).await?;
    if there.get("policy").is_some_and(|policy| covers(policy, wanted) && covers(wanted, policy)) {
        return Ok("unchanged");
    }
    plane.ask(Method::PUT, &path, Some(wanted)).await.map(|_| "set")
}

async fn ensure_sandbox(
    plane: &ControlPlane,
    workspace: &str,
    wanted: Map<String, Value>,
    before: Option<Value>,
) -> Result<&'static str, Failure> {
    let Some(before) = before else {
        let mut body = wanted;
        body.insert("workspace_id".to_owned(), workspace.into());
        return plane.post("/sandboxes", &Value::Object(body)).await.map(|_| "started");
    };
    let path = format!("/sandboxes/{}", escaped(&text(&before, "id")));
    let patch: Map<_, _> = wanted.into_iter().filter(|(name, _)| !KEEPS.contains(&name.as_str())).collect();
    let patch = Value::Object(patch);
    let changes = !covers(&before, &patch);
    if changes {
        plane.ask(Method::PATCH, &path, Some(&patch)).await?;
    }
    let runs = text(&before, "state") == "running";
    match (changes, runs) {
        (true, true) => plane.post(&format!("{path}/restart"), &json!({})).await.map(|_| "restarted"),
        (_, false) => plane.post(&format!("{path}/start"), &json!({})).await.map(|_| "started"),
        (false, true) => Ok("unchanged"),
    }
}

/// Whether something is already as it is wanted: what is not named may be anything.
fn covers(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| match there.get(name) {
            Some(there) => covers(there, wanted),
            // What is left out in an answer is empty.
            None => matches!(wanted, Value::Null) || wanted == &json!([]) || wanted == &json!({}) || wanted == "",
        }),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(there, wanted)| covers(there, wanted))
        }
        (Value::Number(there), Value::Number(wanted)) => there.as_f64() == wanted.as_f64(),
        (there, wanted) => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_wanted_is_left_alone() {
        let there = json!({"name": "a", "resources": {"cpu_cores": 1.0, "pids": 256}, "command": ["a", "b"]});
        for (wanted, covered) in [
            (json!({"resources": {"cpu_cores": 1}}), true),
            (json!({"resources": {"cpu_cores": 2}}), false),
            (json!({"command": ["a"]}), false),
            (json!({"environment": {}}), true),
            (json!({"environment": {"A": "b"}}), false),
        ] {
            assert_eq!(covers(&there, &wanted), covered, "{wanted}");
        }
    }

    #[test]
    fn a_file_says_where_it_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let file = dir.path().join("team.yaml");
            std::fs::write(&file, text).unwrap();
            read(&TeamArgs { file })
        };
        let team = of("workspace: {id: shop}\nsandboxes:\n  - name: a\n    resources: {memory_mb: 64}\n").unwrap();
        assert_eq!(team.sandboxes[0]["resources"]["memory_mb"], 64);
        for (text, place) in [
            ("workspace: {}", "id"),
            ("workspace: {id: w}\nsandbox: []", "sandbox"),
            ("workspace: {id: w}\nsandboxes: [{}]", "sandboxes[0]"),
            ("workspace: {id: w}\nsandboxes: [{name: a}, {name: a}]", "two sandboxes"),
            ("workspace: [", "team.yaml"),
        ] {
            let failure = of(text).unwrap_err();
            assert!(failure.to_string().contains(place), "{text}: {failure}");
            assert!(failure.next().unwrap().contains("docs/demo/shop.yaml"), "{text}");
        }
        let absent = read(&TeamArgs { file: dir.path().join("absent.yaml") }).unwrap_err();
        assert_eq!(absent.code(), "FILE_UNREADABLE");
        assert!(absent.next().unwrap().contains("--file"));
    }
}
