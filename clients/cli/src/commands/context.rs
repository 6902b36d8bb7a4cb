//! `tandem context`.

use std::path::PathBuf;

use serde_json::json;

use crate::{
    args::{ContextArgs, ContextCommand, Global},
    contexts::{Contexts, Named, check_name, file},
    exit::Failure,
    output::Output,
};

/// Runs before anything else is looked at: the context that is asked for may not be there yet.
pub(crate) fn run(args: ContextArgs, global: &Global, output: Output) -> Result<(), Failure> {
    let file = file()?;
    let mut contexts = Contexts::read(&file)?;
    match args.command {
        ContextCommand::Add { name, replace, and_use } => {
            check_name(&name)?;
            if contexts.contexts.contains_key(&name) && !replace {
                return Err(Failure::Failed {
                    code: "CONTEXT_EXISTS",
                    text: format!("there is a context {name:?} already"),
                    next: Some("replace it with --replace, or choose another name".to_owned()),
                });
            }
            let named = named(global)?;
            if named == Named::default() {
                return Err(Failure::usage("say what to keep, such as --server URL or --token-file FILE"));
            }
            contexts.contexts.insert(name.clone(), named);
            // The only one is the one that is meant.
            let is_used = and_use || contexts.contexts.len() == 1;
            if is_used {
                contexts.current = Some(name.clone());
            }
            contexts.write(&file)?;
            let told = if is_used { "is used from now on" } else { "is kept" };
            output.note(&format!("context {name} {told}, in {}", file.display()));
            Ok(())
        }
        ContextCommand::Use { name } => {
            if !contexts.contexts.contains_key(&name) {
                return Err(contexts.unknown(&name));
            }
            contexts.current = Some(name);
            contexts.write(&file)
        }
        ContextCommand::List => list(&contexts, output),
        ContextCommand::Show => show(&contexts, global, output),
        ContextCommand::Remove { name } => {
            if contexts.contexts.remove(&name).is_none() {
                return Err(contexts.unknown(&name));
            }
            contexts.current = contexts.current.filter(|current| *current != name);
            contexts.write(&file)
        }
    }
}

/// What was given, with files as they are found from anywhere.
fn named(global: &Global) -> Result<Named, Failure> {
    let absolute = |path: &Option<PathBuf>| {
        path.as_ref().map(|path| std::path::absolute(path).map_err(|error| Failure::file(path, &error))).transpose()
    };
    Ok(Named {
        server: global.server.clone(),
        control_plane: global.control_plane.clone(),
        workspace: global.workspace.clone(),
        token_file: absolute(&global.token_file)?,
        ca_file: absolute(&global.ca_file)?,
        cert_file: absolute(&global.cert_file)?,
        cert_key_file: absolute(&global.cert_key_file)?,
    })
}

fn list(contexts: &Contexts, output: Output) -> Result<(), Failure> {
    let rows = contexts.contexts.iter().map(|(name, named)| {
        let is_current = contexts.current.as_ref() == Some(name);
        let shown = |value: &Option<String>| value.clone().unwrap_or_default();
        let token = named.token_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let row = vec![
            if is_current { "*" } else { "" }.to_owned(),
            name.clone(),
            shown(&named.server),
            shown(&named.control_plane),
            shown(&named.workspace),
            token,
        ];
        let mut json = json!(named);
        json["name"] = json!(name);
        json["current"] = json!(is_current);
        (json, row)
    });
    output.rows(&["", "NAME", "SERVER", "CONTROL PLANE", "WORKSPACE", "TOKEN FILE"], &rows.collect::<Vec<_>>())
}

fn show(contexts: &Contexts, global: &Global, output: Output) -> Result<(), Failure> {
    let picked = contexts.pick(global.context.as_deref())?;
    let (name, named) = picked.map_or((None, Named::default()), |(name, named)| (Some(name), named.clone()));
    let given = named_of(global);
    let resolved = global.clone().within(&named);
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let rows = [
        ("server", given.server.clone(), named.server.clone(), resolved.server),
        ("control_plane", given.control_plane.clone(), named.control_plane.clone(), resolved.control_plane),
        ("workspace", given.workspace.clone(), named.workspace.clone(), resolved.workspace),
        ("token_file", text(&given.token_file), text(&named.token_file), text(&resolved.token_file)),
        ("ca_file", text(&given.ca_file), text(&named.ca_file), text(&resolved.ca_file)),
        ("cert_file", text(&given.cert_file), text(&named.cert_file), text(&resolved.cert_file)),
        ("cert_key_file", text(&given.cert_key_file), text(&named.cert_key_file), text(&resolved.cert_key_file)),
    ]
    .map(|(what, given, kept, value)| {
        let from = match (given, kept) {
            (Some(_), _) => "command or environment".to_owned(),
            (None, Some(_)) => format!("context {}", name.unwrap_or_default()),
            (None, None) => "built in".to_owned(),
        };
        let value = value.unwrap_or_default();
        (json!({"setting": what, "value": value, "from": from}), vec![what.to_owned(), value, from])
    });
    output.rows(&["SETTING", "VALUE", "FROM"], &rows)
}

/// What was given, as it was given.
fn named_of(global: &Global) -> Named {
    Named {
        server: global.server.clone(),
        control_plane: global.control_plane.clone(),
        workspace: global.workspace.clone(),
        token_file: global.token_file.clone(),
        ca_file: global.ca_file.clone(),
        cert_file: global.cert_file.clone(),
        cert_key_file: global.cert_key_file.clone(),
    }
}
