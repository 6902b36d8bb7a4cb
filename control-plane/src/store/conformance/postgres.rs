//! A PostgreSQL server of its own, in a folder that goes with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A server that listens on a socket in its folder.
pub(super) struct Server {
    dir: tempfile::TempDir,
    binaries: PathBuf,
    running: Child,
}

/// PostgreSQL does not run as root: then it runs as `postgres`, which Debian's package has made.
fn command(binary: &Path) -> Command {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !is_root {
        return Command::new(binary);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(binary);
    command
}

/// The newest version that is installed.
fn binaries() -> PathBuf {
    let mut found: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed (tools/setup.sh test)")
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL is installed (tools/setup.sh test)")
}

impl Server {
    pub(super) async fn start() -> Self {
        let (dir, binaries) = (tempfile::tempdir().unwrap(), binaries());
        let (data, socket) = (dir.path().join("data"), dir.path().join("socket"));
        for folder in [&data, &socket] {
            fs::create_dir(folder).unwrap();
        }
        for folder in [dir.path(), &data, &socket] {
            let open = std::os::unix::fs::PermissionsExt::from_mode(if folder == data { 0o700 } else { 0o777 });
            fs::set_permissions(folder, open).unwrap();
        }
        Command::new("chown").arg("postgres").arg(&data).stderr(Stdio::null()).status().ok();
        let mut making = command(&binaries.join("initdb"));
        making.args(["--auth=trust", "--username=tandem", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "-D"]);
        let made = making.arg(&data).current_dir("/").output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut serving = command(&binaries.join("postgres"));
        serving.arg("-D").arg(&data).arg("-k").arg(&socket).args(["-h", "", "-c", "fsync=off"]);
        let running = serving.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { dir, binaries, running };
        for _ in 0..200 {
            if server.sql("SELECT 1") {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("PostgreSQL does not start");
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn sql(&self, sql: &str) -> bool {
        let mut asking = Command::new(self.binaries.join("psql"));
        asking.arg("-h").arg(self.socket()).args(["-U", "tandem", "-d", "postgres", "-c", sql]);
        asking.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// The address of a new database.
    pub(super) fn database(&self, name: &str) -> String {
        assert!(self.sql(&format!("CREATE DATABASE {name}")), "{name}");
        let host = self.socket().display().to_string().replace('/', "%2F");
        format!("postgres://tandem@{host}/{name}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fast shutdown: `setpriv` has become the server itself.
        Command::new("kill").args(["-INT", &self.running.id().to_string()]).status().ok();
        self.running.wait().ok();
    }
}
