//! What commands and handlers find under the run directory, and in their environment.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Component, Path, PathBuf},
};

use crate::assignment::Assignment;

/// The file with the token.
pub(crate) fn token(run_dir: &Path) -> PathBuf {
    run_dir.join("token")
}

/// Writes all that is for the eyes of this user.
pub(crate) fn write(run_dir: &Path, assignment: &Assignment) -> io::Result<()> {
    folder(run_dir)?;
    if let Some(text) = &assignment.token {
        replace(&token(run_dir), text)?;
    }
    replace(&run_dir.join("agent.json"), &assignment.agent_config.to_string())?;
    for (name, text) in &assignment.secrets {
        let name = Path::new(name);
        // It stays below the folder, whatever it is called.
        if name.as_os_str().is_empty() || !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of a secret is no path below a folder"));
        }
        let path = run_dir.join("secrets").join(name);
        folder(path.parent().unwrap_or(run_dir))?;
        replace(&path, text)?;
    }
    Ok(())
}

fn folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whoever reads gets the old text or the new one.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&aside, path)
}

/// What a program in the sandbox knows beside its own variables.
pub(crate) fn environment(run_dir: &Path, assignment: &Assignment) -> Vec<(String, String)> {
    let path = |path: PathBuf| path.display().to_string();
    let mut known = vec![
        ("TANDEM_BROKER".to_owned(), assignment.broker.join(",")),
        ("TANDEM_SERVER".to_owned(), assignment.broker.first().cloned().unwrap_or_default()),
        ("TANDEM_WORKSPACE".to_owned(), assignment.workspace_id.clone()),
        ("TANDEM_SANDBOX".to_owned(), assignment.sandbox_id.clone()),
        ("TANDEM_AGENT_CONFIG".to_owned(), path(run_dir.join("agent.json"))),
        ("TANDEM_SECRETS_DIR".to_owned(), path(run_dir.join("secrets"))),
    ];
    if assignment.token.is_some() {
        known.push(("TANDEM_TOKEN_FILE".to_owned(), path(token(run_dir))));
    }
    let own = assignment.environment.iter().filter(|(name, _)| !name.starts_with("TANDEM_"));
    known.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    known
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn assignment(more: &str) -> Assignment {
        let text = format!(r#"{{"broker":["http://b"],"workspace_id":"w","sandbox_id":"s","token":"t"{more}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn secrets_are_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        write(&run_dir, &assignment(r#","secrets":{"llm/openai":"k3y"}"#)).unwrap();
        for (file, text) in [("token", "t"), ("secrets/llm/openai", "k3y"), ("agent.json", "null")] {
            let path = run_dir.join(file);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{file}");
        }
        for name in ["../up", "/etc/passwd", ""] {
            let wrong = assignment(&format!(r#","secrets":{{"{name}":"x"}}"#));
            assert!(write(&run_dir, &wrong).is_err(), "{name}");
        }
    }

    #[test]
    fn nobody_passes_for_the_agent() {
        let known = environment(
            Path::new("/run/tandem"),
            &assignment(r#","environment":{"TANDEM_BROKER":"http://evil","A":"b"}"#),
        );
        assert!(known.contains(&("A".to_owned(), "b".to_owned())));
        assert!(!known.iter().any(|(_, value)| value.contains("evil")));
        assert!(known.iter().any(|(name, value)| name == "TANDEM_TOKEN_FILE" && value == "/run/tandem/token"));
    }
}
