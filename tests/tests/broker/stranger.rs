//! A client in another language, without a line of generated code: what reflection tells is enough.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::stage::Stage;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stranger")
}

/// Runs a command; when it fails, so does the test, with what it said.
fn run(command: &mut Command, what_to_do: &str) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}; {what_to_do}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}\n{what_to_do}");
    output
}

/// The packages of `requirements.txt`, installed once into the user's cache. Not a virtual environment, which some systems
/// cannot make without another package.
fn python_packages() -> PathBuf {
    let requirements = folder().join("requirements.txt");
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("HOME or XDG_CACHE_HOME says where caches lie")).join(".cache")
    });
    let python = run(Command::new("python3").arg("--version"), "install python3 (make setup does)");
    let mut version = DefaultHasher::new();
    (fs::read(&requirements).unwrap(), python.stdout).hash(&mut version);
    let packages = cache.join("aintandem").join(format!("stranger-{:016x}", version.finish()));
    if packages.is_dir() {
        return packages;
    }
    fs::create_dir_all(packages.parent().unwrap()).unwrap();
    // Beside its final place, and moved there when it is whole: two runs at once must not see each other's halves.
    let fresh = tempfile::tempdir_in(packages.parent().unwrap()).unwrap();
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--only-binary=:all:"]);
    pip.arg("--target").arg(fresh.path()).arg("-r").arg(&requirements);
    run(&mut pip, "this test needs python3 with pip, and a package index that can be reached");
    if fs::rename(fresh.path(), &packages).is_ok() {
        // It is the cache now, no longer a temporary folder.
        drop(fresh.keep());
    }
    packages
}

#[tokio::test]
async fn a_stranger_finds_out_by_reflection_and_publishes_subscribes_and_acknowledges() {
    let packages = python_packages();
    let stage = Stage::with(&[]).await;
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", &packages).arg(folder().join("stranger.py")).arg(stage.broker.grpc_address().to_string());
    let output = tokio::task::spawn_blocking(move || run(&mut python, "the stranger could not talk to the broker"));
    let seen: serde_json::Value = serde_json::from_slice(&output.await.unwrap().stdout).unwrap();

    let services: Vec<&str> = seen["services"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    for name in ["messaging.v1.PublishService", "messaging.v1.SubscribeService", "registry.v1.RegistryService"] {
        assert!(services.contains(&format!("aintandem.{name}").as_str()), "{services:?}");
    }
    assert!(services.contains(&"grpc.health.v1.Health"), "{services:?}");
    assert_eq!((seen["message_id"].as_str(), seen["sequence"].as_u64()), (Some("seq-1"), Some(1)));
    assert_eq!((seen["received_sequence"].as_u64(), seen["acknowledged"].as_u64()), (Some(1), Some(1)));
    assert_eq!(seen["content"], "hello from elsewhere");
    assert_eq!(seen["metadata"]["language"], "python");
    assert_eq!(seen["refusal"][0], "NOT_FOUND");
    assert_eq!(seen["refusal"][1], "sandbox \"nobody\" is not registered; register it first");
    assert_eq!(stage.pending("friend").await, 0);
}
