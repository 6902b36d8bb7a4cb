//! `tandem context`.

use std::path::PathBuf;

use serde_json::json;

use crate::{
    address,
    args::{ContextArgs, ContextCommand, Global},
    contexts::{Contexts, Named, check_name, file},
    exit::Failure,
    output::Output,
    settled::{Found, Given, Origin},
};

/// Runs before anything else is looked at: the context that is asked for may not be there yet.
pub(crate) fn run(args: ContextArgs, global: &Global, given: &Given, output: Output) -> Result<(), Failure> {
    let file = file()?;
    match args.command {
        ContextCommand::Add { name, replace, and_use } => {
            check_name(&name)?;
            let named = to_keep(global)?;
            let absent = absent(&named);
            let is_used = Contexts::change(&file, |contexts| add(contexts, &name, named, replace, and_use))?;
            let told = if is_used { "is used from now on" } else { "is kept" };
            output.note(&format!("context {name} {told}, in {}", file.display()));
            for path in absent {
                output.note(&format!("{} is not there; commands need it", path.display()));
            }
            Ok(())
        }
        ContextCommand::Use { name } => Contexts::change(&file, |contexts| {
            if !contexts.contexts.contains_key(&name) {
                return Err(contexts.unknown(&name));
            }
            contexts.current = Some(name);
            Ok(())
        }),
        ContextCommand::List => list(&Contexts::read(&file)?, output),
        ContextCommand::Show => show(&Contexts::read(&file)?, given, output),
        ContextCommand::Remove { name } => Contexts::change(&file, |contexts| {
            if contexts.contexts.remove(&name).is_none() {
                return Err(contexts.unknown(&name));
            }
            contexts.current = contexts.current.take().filter(|current| *current != name);
            Ok(())
        }),
    }
}

/// Returns whether it is used from now on.
fn add(contexts: &mut Contexts, name: &str, named: Named, may_replace: bool, and_use: bool) -> Result<bool, Failure> {
    if contexts.contexts.contains_key(name) && !may_replace {
        return Err(Failure::Failed {
            code: "CONTEXT_EXISTS",
            text: format!("there is a context {name:?} already"),
            next: Some("replace it with --replace, or choose another name".to_owned()),
        });
    }
    contexts.contexts.insert(name.to_owned(), named);
    // The only one is the one that is meant.
    let is_used = and_use || contexts.contexts.len() == 1;
    if is_used {
        contexts.current = Some(name.to_owned());
    }
    Ok(is_used)
}

/// What was given, with files as they are found from anywhere.
fn to_keep(global: &Global) -> Result<Named, Failure> {
    let mut named = global.named(|_| true);
    if named == Named::default() {
        return Err(Failure::usage("say what to keep, such as --server URL, and --token-file FILE with it"));
    }
    let is_secret = named.token_file.is_some() || named.cert_file.is_some();
    if is_secret && named.server.is_none() && named.control_plane.is_none() {
        return Err(Failure::usage(
            "a token or a certificate is kept for an address, and shown nowhere else: \
             say --server URL, or --control-plane URL, too",
        ));
    }
    for (option, url, example) in [
        ("--server", &named.server, "http://127.0.0.1:8001"),
        ("--control-plane", &named.control_plane, "http://127.0.0.1:8000"),
    ] {
        if let Some(url) = url {
            address::check(option, url, example)?;
        }
    }
    let files = [&mut named.token_file, &mut named.ca_file, &mut named.cert_file, &mut named.cert_key_file];
    for path in files.into_iter().flatten() {
        *path = std::path::absolute(&*path).map_err(|error| Failure::file(path, &error))?;
    }
    Ok(named)
}

/// Files that are kept and not there; they may come later.
fn absent(named: &Named) -> Vec<PathBuf> {
    let files = [&named.token_file, &named.ca_file, &named.cert_file, &named.cert_key_file];
    files.into_iter().flatten().filter(|file| !file.exists()).cloned().collect()
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

fn show(contexts: &Contexts, given: &Given, output: Output) -> Result<(), Failure> {
    let picked = contexts.pick(given.context())?;
    let (name, named) = picked.map_or(("", Named::default()), |(name, named)| (name, named.clone()));
    let settled = given.settle(&named);
    let text = |found: &Found<String>| (found.value.clone(), found.from);
    let path = |found: &Option<Found<PathBuf>>| {
        found.as_ref().map_or((String::new(), Origin::BuiltIn), |found| (found.value.display().to_string(), found.from))
    };
    let rows = [
        ("server", text(&settled.server), None),
        ("control_plane", text(&settled.control_plane), None),
        ("workspace", text(&settled.workspace), None),
        ("token_file", path(&settled.token_file), settled.token_withheld()),
        ("ca_file", path(&settled.ca_file), None),
        ("cert_file", path(&settled.cert_file), settled.certificate_withheld()),
        ("cert_key_file", path(&settled.cert_key_file), settled.certificate_withheld()),
    ]
    .map(|(what, (value, from), withheld)| {
        let from = match from {
            Origin::CommandLine => "command line".to_owned(),
            Origin::Environment => "environment".to_owned(),
            Origin::Context => format!("context {name}"),
            Origin::BuiltIn => "built in".to_owned(),
        };
        let row = vec![what.to_owned(), value.clone(), from.clone(), withheld.clone().unwrap_or_default()];
        (json!({"setting": what, "value": value, "from": from, "withheld": withheld}), row)
    });
    output.rows(&["SETTING", "VALUE", "FROM", "WITHHELD"], &rows)
}
