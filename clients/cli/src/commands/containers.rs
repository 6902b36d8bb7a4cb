//! `tandem sandbox create|ls|start|stop|restart|logs|stats|exec|rm`: sandboxes in containers, by way of the control plane.

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::{
    args::{AgentSpec, CreateSandboxArgs, ExecArgs, LogsArgs},
    control_plane::{ControlPlane, escaped},
    exit::Failure,
    output::{Output, output_closed},
    run::Context,
};

/// What is asked for as JSON, and shown as a row.
pub(crate) fn text(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Sandboxes of the workspace, all of them.
pub(crate) async fn all(plane: &ControlPlane, workspace: &str) -> Result<Vec<Value>, Failure> {
    let mut found = Vec::new();
    let mut path = format!("/sandboxes?limit=500&sort=name&workspace_id={}", escaped(workspace));
    loop {
        let page = plane.get(&path).await?;
        found.extend(page["sandboxes"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(cursor) => {
                path = format!(
                    "/sandboxes?limit=500&sort=name&workspace_id={}&cursor={}",
                    escaped(workspace),
                    escaped(cursor)
                );
            }
            None => return Ok(found),
        }
    }
}

/// The id of a sandbox that was named by its name, or its id.
async fn id_of(plane: &ControlPlane, workspace: &str, name: &str) -> Result<String, Failure> {
    if name.starts_with("sb-") && name.len() == 35 {
        return Ok(name.to_owned());
    }
    let (workspace_part, name_part) = (escaped(workspace), escaped(name));
    let path = format!("/sandboxes?limit=500&sort=name&workspace_id={workspace_part}&name_prefix={name_part}");
    let page = plane.get(&path).await?;
    let found = page["sandboxes"].as_array().and_then(|all| all.iter().find(|one| one["name"] == name).cloned());
    found.map(|one| text(&one, "id")).ok_or_else(|| Failure::Failed {
        code: "NO_SUCH_CONTAINER",
        text: format!("workspace {workspace:?} has no sandbox {name:?} in a container"),
        next: Some("tandem sandbox ls".to_owned()),
    })
}

pub(crate) async fn create(context: &Context, args: CreateSandboxArgs) -> Result<(), Failure> {
    let plane = ControlPlane::of(context)?;
    let body = body(context, args);
    let made = plane.post("/sandboxes", &body).await?;
    let says = format!("sandbox {} is {} ({})", text(&made, "name"), text(&made, "state"), text(&made, "id"));
    context.output.result(|| made, || says)
}

fn body(context: &Context, args: CreateSandboxArgs) -> Value {
    let mut body = json!({ "workspace_id": context.workspace, "name": args.name });
    let mut set = |name: &str, value: Value| body[name] = value;
    let mut agents: Vec<_> = args
        .agents
        .into_iter()
        .map(|AgentSpec(agent)| json!({ "name": agent.name, "role": agent.role, "capabilities": agent.capabilities }))
        .collect();
    if !agents.is_empty() {
        let primary = agents.remove(0);
        set("agent_config", json!({ "primary_agent": primary, "sub_agents": agents }));
    }
    let mut resources = Map::new();
    let numbers = [
        ("memory_mb", args.memory.map(Value::from)),
        ("cpu_cores", args.cpus.map(Value::from)),
        ("pids", args.pids.map(Value::from)),
        ("disk_mb", args.disk.map(Value::from)),
        ("timeout_seconds", args.timeout.map(|time| time.as_secs().into())),
    ];
    resources.extend(numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    if !resources.is_empty() {
        set("resources", resources.into());
    }
    if let Some(image) = args.image {
        set("image", image.into());
    }
    if let Some(time) = args.idle_timeout {
        set("idle_timeout_seconds", time.as_secs().into());
    }
    if args.wake_on_message {
        set("wake_on_message", true.into());
    }
    if !args.environment.is_empty() {
        let pairs = args.environment.into_iter().map(|pair| (pair.key, Value::from(pair.value)));
        set("environment", Value::Object(pairs.collect()));
    }
    match (args.handler, args.program) {
        (true, program) => set("handler", json!({ "command": program })),
        (false, program) if !program.is_empty() => set("command", program.into()),
        _ => {}
    }
    body
}

pub(crate) async fn list(context: &Context) -> Result<(), Failure> {
    let plane = ControlPlane::of(context)?;
    let all = all(&plane, &context.workspace).await?;
    let rows: Vec<_> = all
        .into_iter()
        .map(|one| {
            let resources = &one["resources"];
            let row = vec![
                text(&one, "name"),
                text(&one, "state"),
                format!("{} MiB", text(resources, "memory_mb")),
                text(resources, "cpu_cores"),
                text(&one, "update_time"),
                text(&one, "error"),
            ];
            (one, row)
        })
        .collect();
    context.output.rows(&["SANDBOX", "STATE", "MEMORY", "CPUS", "CHANGED", "ERROR"], &rows)
}

/// `start`, `stop` or `restart`.
pub(crate) async fn turn(context: &Context, name: &str, verb: &str) -> Result<(), Failure> {
    let plane = ControlPlane::of(context)?;
    let id = id_of(&plane, &context.workspace, name).await?;
    let now = plane.post(&format!("/sandboxes/{}/{verb}", escaped(&id)), &json!({})).await?;
    let says = format!("sandbox {} is {}", text(&now, "name"), text(&now, "state"));
    context.output.result(|| now, || says)
}

pub(crate) async fn remove(context: &Context, name: &str) -> Result<(), Failure> {
    let plane = ControlPlane::of(context)?;
    let id = id_of(&plane, &context.workspace, name).await?;
    let left = plane.ask(Method::DELETE, &format!("/sandboxes/{}", escaped(&id)), None).await?;
    let says = if left.is_null() { "is gone" } else { "is being deleted" };
    context.output.result(
        || json!({ "id": id, "name": name, "deleted": left.is_null() }),
        || format!("sandbox {name} {says}, with its data and its inbox"),
    )
}

pub(crate) async fn stats(context: &Context, name: &str) -> Result<(), Failure> {
    let plane = ControlPlane::of(context)?;
    let id = id_of(&plane, &context.workspace, name).await?;
    let stats = plane.get(&format!("/sandboxes/{}/stats", escaped(&id))).await?;
    let status = plane.get(&format!("/sandboxes/{}/status", escaped(&id))).await?;
    let mib =
        |name: &str| stats[name].as_u64().map(|bytes| format!("{:.1} MiB", bytes_to_mib(bytes))).unwrap_or_default();
    let facts = [
        ("sandbox", name.to_owned()),
        ("state", text(&status, "state")),
        ("cpu", format!("{:.2} s", stats["cpu_seconds"].as_f64().unwrap_or(0.0))),
        ("memory", format!("{} of {}", mib("memory_bytes"), mib("memory_limit_bytes"))),
        ("disk", mib("disk_bytes")),
        ("pids", text(&stats, "pids")),
        ("received", mib("received_bytes")),
        ("sent", mib("sent_bytes")),
        ("waiting", text(&status, "pending_messages")),
        ("dead", text(&status, "dead_letters")),
        ("restarts", text(&status, "restarts")),
    ];
    let lines: Vec<_> =
        facts.iter().filter(|(_, fact)| !fact.is_empty()).map(|(name, fact)| format!("{name:<10}{fact}")).collect();
    context.output.result(|| json!({ "stats": stats, "status": status }), || lines.join("\n"))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn bytes_to_mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub(crate) async fn logs(context: &Context, args: LogsArgs) -> Result<(), Failure> {
    let plane = ControlPlane::of(context)?;
    let id = id_of(&plane, &context.workspace, &args.name).await?;
    let since = args.since.map(|time| format!("&since={}", escaped(&time))).unwrap_or_default();
    let path = format!("/sandboxes/{}/logs?tail={}{since}", escaped(&id), args.tail);
    let output = context.output;
    if args.follow {
        let followed = format!("{path}&follow=true");
        let following = plane.follow(&followed, |name, data| match name {
            "problem" => Err(Failure::failed("CONTROL_PLANE_UNREACHABLE", text(data, "detail"))),
            _ => line(output, data),
        });
        // Who reads may go, also while nothing is printed.
        return tokio::select! { done = following => done, () = output_closed() => Ok(()) };
    }
    let lines = plane.get(&path).await?;
    lines["lines"].as_array().into_iter().flatten().try_for_each(|data| line(output, data))
}

/// A line goes where the sandbox has printed it.
fn line(output: Output, data: &Value) -> Result<(), Failure> {
    if output.json {
        return output.line(&data.to_string());
    }
    output.line(&text(data, "text"))
}

pub(crate) async fn exec(context: &Context, args: ExecArgs) -> Result<(), Failure> {
    let plane = ControlPlane::of(context)?;
    let id = id_of(&plane, &context.workspace, &args.name).await?;
    let body = json!({ "command": args.program, "timeout_seconds": args.timeout });
    let done = plane.post(&format!("/sandboxes/{}/exec", escaped(&id)), &body).await?;
    let code = done["exit_code"].as_i64();
    let said = text(&done, "stdout");
    eprint!("{}", if context.output.json { String::new() } else { text(&done, "stderr") });
    if context.output.json {
        context.output.line(&done.to_string())?;
    } else if !said.is_empty() {
        context.output.line(said.trim_end_matches('\n'))?;
    }
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::failed("COMMAND_FAILED", format!("the command ended with exit code {code}"))),
        None => Err(Failure::TimedOut(format!("the command runs on; it was waited for {} s", args.timeout))),
    }
}
