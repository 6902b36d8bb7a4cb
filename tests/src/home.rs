//! A place of its own for the broker of a test.

use std::path::{Path, PathBuf};

use tandem_broker::{Config, LogFormat};
use tempfile::TempDir;

/// A directory that goes with the test, unless the test fails: then it stays, and the test says where. The data lies in
/// `data` within it; files of the test lie beside that.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
}

impl Drop for Home {
    #[allow(clippy::print_stdout, reason = "it belongs to the output of a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            println!("what the brokers of this test wrote stays in {}", self.dir.path().display());
        }
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty place.
    ///
    /// # Panics
    /// When there is no room for temporary files.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory for temporary files") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the data lies.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The default settings, with the data here, two shards, free ports of this machine, and logs for programs.
    pub fn config(&self) -> Config {
        let mut config = Config { data_dir: self.data(), ..Config::default() };
        config.auth.open = true;
        config.listen.set_port(0);
        config.metrics_listen.set_port(0);
        config.storage.shards = 2;
        config.log.format = LogFormat::Json;
        config
    }
}
