//! `tandem key`.

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tandem_client::{Key, NewKey};

use crate::{
    args::{KeyArgs, KeyCommand},
    exit::Failure,
    output::{has_passed, time},
    run::Context,
};

pub(crate) async fn run(context: &Context, args: KeyArgs) -> Result<(), Failure> {
    let keys = context.client()?.keys();
    match args.command {
        KeyCommand::Create(args) => {
            let (key, secret) = keys
                .create(NewKey {
                    subject: args.subject,
                    roles: args.roles.iter().map(|role| role.name().to_owned()).collect(),
                    workspace_id: args.bind_workspace,
                    sandbox_id: args.bind_sandbox,
                    expires_in: args.expires_in,
                })
                .await?;
            context.output.note(&format!("key {}; keep the secret, it is shown this once", key.key_id));
            let told = || {
                let mut told = json(&key);
                told["secret"] = json!(secret);
                told
            };
            context.output.result(told, || secret.clone())
        }
        KeyCommand::List => {
            let keys: Vec<Key> = keys.list().try_collect().await?;
            let rows: Vec<_> = keys.iter().map(|key| (json(key), row(key))).collect();
            context.output.rows(&["KEY", "SUBJECT", "ROLES", "BOUND TO", "STATE", "EXPIRES", "LAST USE"], &rows)
        }
        KeyCommand::Revoke { id } => {
            let key = keys.revoke(id).await?;
            context.output.result(|| json(&key), || format!("key {} revoked", key.key_id))
        }
    }
}

fn json(key: &Key) -> Value {
    json!({
        "key_id": key.key_id, "subject": key.subject, "roles": key.roles, "workspace_id": key.workspace_id,
        "sandbox_id": key.sandbox_id, "create_time": time(key.create_time), "expire_time": time(key.expire_time),
        "last_use_time": time(key.last_use_time), "revoke_time": time(key.revoke_time), "created_by": key.created_by,
    })
}

fn row(key: &Key) -> Vec<String> {
    let bound = match (key.workspace_id.as_str(), key.sandbox_id.as_str()) {
        ("", _) => "nothing".to_owned(),
        (workspace, "") => workspace.to_owned(),
        (workspace, sandbox) => format!("{workspace}/{sandbox}"),
    };
    let text = |at: Option<prost_types::Timestamp>| match at {
        Some(_) => time(at),
        None => "never".to_owned(),
    };
    let state = match (key.revoke_time, key.expire_time) {
        (Some(_), _) => "revoked",
        (None, end) if has_passed(end) => "ended",
        _ => "holds",
    };
    vec![
        key.key_id.clone(),
        key.subject.clone(),
        key.roles.join(", "),
        bound,
        state.to_owned(),
        text(key.expire_time),
        text(key.last_use_time),
    ]
}
