//! Contexts: what every command takes, under a name, in a file of this user.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{exit::Failure, replace::replace};

/// Longest name of a context, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// What is kept under a name; what is not, is as the command has it by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Named {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) control_plane: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_key_file: Option<PathBuf>,
}

/// All of them, and which one counts when none is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    pub(crate) contexts: BTreeMap<String, Named>,
}

/// Where they are: `TANDEM_CONTEXTS`, else `tandem/contexts.toml` in the folder for settings of this user.
pub(crate) fn file() -> Result<PathBuf, Failure> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = || of("XDG_CONFIG_HOME").or_else(|| Some(of("HOME")?.join(".config")));
    of("TANDEM_CONTEXTS").or_else(|| Some(folder()?.join("tandem/contexts.toml"))).ok_or_else(|| {
        Failure::failed("NO_CONTEXTS_FILE", "neither TANDEM_CONTEXTS nor HOME says where contexts are kept")
    })
}

impl Contexts {
    /// Those of a file; none where there is no file.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            // A folder of its path may be none, as in a home of /dev/null.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Failure::file(file, &error)),
        };
        toml::from_str(&text).map_err(|error| Failure::Failed {
            code: "CONTEXTS_UNREADABLE",
            text: format!("{} holds no contexts: {error}", file.display()),
            next: Some("mend the file, or remove it and add the contexts again".to_owned()),
        })
    }

    /// Changes those of a file: all that is changed or nothing, and what others change at the same time is kept.
    pub(crate) fn change<T>(file: &Path, change: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::failed("CONTEXTS_UNWRITABLE", format!("cannot write {}: {error}", file.display()))
        };
        fs::create_dir_all(file.parent().unwrap_or(Path::new("."))).map_err(|error| failed(&error))?;
        let lock = locked(file).map_err(|error| failed(&error))?;
        let mut contexts = Self::read(file)?;
        let done = change(&mut contexts)?;
        let text = toml::to_string_pretty(&contexts).map_err(|error| failed(&error))?;
        replace(file, text.as_bytes()).map_err(|error| failed(&error))?;
        drop(lock);
        Ok(done)
    }

    /// The one that is asked for, or the current one; None: there is none, and none was asked for.
    pub(crate) fn pick(&self, asked: Option<&str>) -> Result<Option<(&str, &Named)>, Failure> {
        let Some(name) = asked.or(self.current.as_deref()) else { return Ok(None) };
        match self.contexts.get_key_value(name) {
            Some((name, named)) => Ok(Some((name, named))),
            None if asked.is_some() => Err(self.unknown(name)),
            // Whoever has asked for none need not know that there is one.
            None => {
                let known: Vec<_> = self.contexts.keys().map(String::as_str).collect();
                Err(Failure::Failed {
                    code: "UNKNOWN_CONTEXT",
                    text: format!("there is no context {name:?}, which is the current one"),
                    next: Some(match known.as_slice() {
                        [] => format!("add it: tandem context add {name} --server URL"),
                        known => format!("tandem context use NAME; there are: {}", known.join(", ")),
                    }),
                })
            }
        }
    }

    /// There is none of this name.
    pub(crate) fn unknown(&self, name: &str) -> Failure {
        let known: Vec<_> = self.contexts.keys().map(String::as_str).collect();
        let next = match known.as_slice() {
            [] => format!("add it: tandem context add {name} --server URL"),
            known => format!("there are: {}", known.join(", ")),
        };
        Failure::Failed { code: "UNKNOWN_CONTEXT", text: format!("there is no context {name:?}"), next: Some(next) }
    }
}

/// Nobody else changes the file until this is dropped. The lock is a file of its own, which stays: the other one is replaced.
fn locked(file: &Path) -> io::Result<fs::File> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".lock");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let lock = options.open(beside)?;
    match lock.lock() {
        // Where there are no locks, whoever works alone gets along without.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(lock),
        done => done.map(|()| lock),
    }
}

/// Whether a context can be called so.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(Failure::usage(format!("{name:?} is no name of a context: 1 to {MAX_NAME_BYTES} letters, digits, - _ .")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_that_are_kept_at_the_same_time_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("contexts.toml");
        std::thread::scope(|scope| {
            for index in 0..16 {
                let file = &file;
                scope.spawn(move || {
                    let add = |kept: &mut Contexts| Ok(kept.contexts.insert(index.to_string(), Named::default()));
                    assert_eq!(Contexts::change(file, add).unwrap(), None);
                });
            }
        });
        assert_eq!(Contexts::read(&file).unwrap().contexts.len(), 16);
    }

    #[test]
    fn contexts_are_kept_and_picked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/contexts.toml");
        assert_eq!(Contexts::read(&file).unwrap(), Contexts::default());
        let prod = Named { server: Some("https://b:8001".to_owned()), ..Named::default() };
        let contexts = Contexts {
            current: Some("prod".to_owned()),
            contexts: BTreeMap::from([("prod".to_owned(), prod), ("dev".to_owned(), Named::default())]),
        };
        let keep = |kept: &mut Contexts| {
            *kept = contexts.clone();
            Ok(())
        };
        Contexts::change(&file, keep).unwrap();
        assert_eq!(Contexts::read(&file).unwrap(), contexts);
        let mut files: Vec<_> =
            fs::read_dir(dir.path().join("a")).unwrap().map(|one| one.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["contexts.toml", "contexts.toml.lock"], "no draft is left");
        let refused = Contexts::change(&file, |kept| {
            kept.contexts.clear();
            Err::<(), _>(kept.unknown("x"))
        });
        assert_eq!(refused.unwrap_err().code(), "UNKNOWN_CONTEXT");
        assert_eq!(Contexts::read(&file).unwrap(), contexts);
        assert_eq!(Contexts::read(&file.join("below")).unwrap(), Contexts::default());
        assert_eq!(contexts.pick(None).unwrap().unwrap().0, "prod");
        assert_eq!(contexts.pick(Some("dev")).unwrap().unwrap().0, "dev");
        let unknown = contexts.pick(Some("test")).unwrap_err();
        assert_eq!((unknown.code(), unknown.next().as_deref()), ("UNKNOWN_CONTEXT", Some("there are: dev, prod")));
        let astray = Contexts { current: Some("locl".to_owned()), ..contexts.clone() };
        let next = astray.pick(None).unwrap_err().next().unwrap();
        assert!(next.contains("tandem context use") && next.contains("dev, prod"), "{next}");
        assert!(Contexts::default().pick(None).unwrap().is_none());
        fs::write(&file, "curent = 1").unwrap();
        assert_eq!(Contexts::read(&file).unwrap_err().code(), "CONTEXTS_UNREADABLE");
        check_name("a-b_c.1").unwrap();
        for wrong in ["", "a b", "a/b", &"x".repeat(65)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
