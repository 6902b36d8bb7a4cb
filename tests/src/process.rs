//! A broker as a process of its own: started, killed, stopped, watched.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tandem_broker::Config;
use tandem_client::Client;
use tonic::transport::{Channel, Endpoint};

use crate::{Home, clock, http};

/// How long a start or an end may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the harness looks whether something has happened.
const GLANCE: Duration = Duration::from_millis(2);

/// How a process ended.
#[derive(Debug, Clone)]
pub struct Exit {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// A running broker. It ends with its test: dropping it kills exactly this process.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    output: Output,
    grpc_address: SocketAddr,
    metrics_address: SocketAddr,
    ready_after: Duration,
}

/// Where a process writes: files, so that nobody has to read along.
#[derive(Debug)]
struct Output {
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Output {
    fn attach(home: &Home, command: &mut Command) -> Self {
        let number = clock::unix_nanos();
        let path = |stream: &str| home.path().join(format!("{stream}-{number}"));
        let output = Self { stdout: path("stdout"), stderr: path("stderr") };
        let file = |path: &PathBuf| File::create(path).expect("the home of the test can be written");
        command.stdin(Stdio::null()).stdout(file(&output.stdout)).stderr(file(&output.stderr));
        output
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    fn exit(&self, status: ExitStatus) -> Exit {
        let stdout = String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned();
        Exit { code: status.code(), stdout, stderr: self.stderr() }
    }
}

/// The service under test, built by cargo together with the tests.
///
/// # Panics
/// When it is not there.
pub fn broker_binary() -> PathBuf {
    under_test("broker-under-test")
}

/// A binary of this package.
pub(crate) fn under_test(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // Tests lie in `<target>/<profile>/deps`, binaries beside `deps`.
    let folder = test.parent().and_then(|deps| deps.parent()).expect("a test lies in a target directory");
    let binary = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.exists(), "{} is missing; run the tests with `make test`, which builds it", binary.display());
    binary
}

/// An example of the Rust client, built by cargo together with the tests.
///
/// # Panics
/// When it is not there.
pub fn example(name: &str) -> PathBuf {
    under_test(&format!("examples/{name}"))
}

/// A command that starts the service, with nothing of this process's environment that would change its settings.
pub fn broker_command() -> Command {
    clean_command(broker_binary())
}

/// A command that starts the control plane, in the same way.
pub fn control_plane_command() -> Command {
    clean_command(under_test("control-plane-under-test"))
}

/// A command without the settings of this process.
pub(crate) fn clean_command(binary: PathBuf) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TANDEM_")) {
        command.env_remove(name);
    }
    // Nor what whoever runs the tests has kept.
    command.env("TANDEM_CONTEXTS", "/nonexistent/contexts.toml");
    command
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be run or does not end in time.
pub async fn run_to_exit(home: &Home, mut command: Command) -> Exit {
    let output = Output::attach(home, &mut command);
    let mut child = command.spawn().expect("the command can be run");
    let status = wait(&mut child, &output).await;
    output.exit(status)
}

async fn wait(child: &mut Child, output: &Output) -> ExitStatus {
    let started = clock::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().ok();
            child.wait().ok();
            panic!("the process did not end within {PATIENCE:?}; it wrote:\n{}", output.stderr());
        }
        tokio::time::sleep(GLANCE).await;
    }
}

impl BrokerProcess {
    /// Starts a broker with these settings and returns once it is ready.
    ///
    /// # Panics
    /// When it ends or is not ready in time.
    pub async fn start(home: &Home, config: &Config) -> Self {
        Self::try_start(home, config).await.unwrap_or_else(|exit| panic!("the broker did not start: {exit:#?}"))
    }

    /// The same for a broker that may refuse to start.
    ///
    /// # Errors
    /// How it ended.
    pub async fn try_start(home: &Home, config: &Config) -> Result<Self, Exit> {
        let mut command = broker_command();
        command.arg("--config").arg(write_config(home, config));
        Self::spawn(home, command).await
    }

    /// Starts this command, which must end in a broker that logs JSON to standard error.
    ///
    /// # Errors
    /// How it ended.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub async fn spawn(home: &Home, mut command: Command) -> Result<Self, Exit> {
        let output = Output::attach(home, &mut command);
        let started = clock::now();
        let mut child = command.spawn().expect("the broker can be run");
        loop {
            if let Some((grpc_address, metrics_address)) = ready_line(&output.stderr()) {
                return Ok(Self { child, output, grpc_address, metrics_address, ready_after: started.elapsed() });
            }
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return Err(output.exit(status));
            }
            if started.elapsed() > PATIENCE {
                child.kill().ok();
                child.wait().ok();
                panic!("the broker was not ready within {PATIENCE:?}; it wrote:\n{}", output.stderr());
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Starts a broker, kills it when it has run for this long, ready or not.
    ///
    /// # Panics
    /// When it cannot be run.
    pub async fn kill_while_starting(home: &Home, config: &Config, after: Duration) {
        let mut command = broker_command();
        command.arg("--config").arg(write_config(home, config));
        Output::attach(home, &mut command);
        let mut child = command.spawn().expect("the broker can be run");
        tokio::time::sleep(after).await;
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Where it serves gRPC.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where it serves operators.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// From the start of the process until it said that it was ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// A connection of its own.
    ///
    /// # Panics
    /// Never: the address is one.
    pub fn client(&self) -> Client {
        Client::connect(format!("http://{}", self.grpc_address)).expect("the address is an endpoint")
    }

    /// A connection for generated clients.
    ///
    /// # Panics
    /// Never: the address is one.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.grpc_address))
            .expect("the address is an endpoint")
            .connect_lazy()
    }

    /// A page of the operators' port.
    pub async fn get(&self, path: &str) -> http::Answer {
        http::get(self.metrics_address, path).await
    }

    /// The sum of all samples of a metric, over its labels.
    ///
    /// # Panics
    /// When there is no such metric.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").await.body;
        let samples: Vec<f64> = page
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .map(|line| {
                line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a sample ends with a number")
            })
            .collect();
        assert!(!samples.is_empty(), "no metric {name} in:\n{page}");
        samples.iter().sum()
    }

    /// Bytes of memory that it holds.
    ///
    /// # Panics
    /// When the system does not say, as others than Linux.
    pub fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says what is resident");
        let kibibytes: usize = line.trim().trim_end_matches(" kB").parse().expect("it is a number of kB");
        kibibytes << 10
    }

    /// The largest core dump that it leaves.
    ///
    /// # Panics
    /// When it has ended.
    pub fn max_core_bytes(&self) -> u64 {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.child.id())).expect("a process has limits");
        let line =
            limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("this is one of them");
        let soft = line.split_whitespace().next().expect("it has a value");
        soft.parse().unwrap_or(u64::MAX)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.output.stderr()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// kill -9.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn kill_nine(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Asks it to stop, as a service manager does. Returns at once.
    ///
    /// # Panics
    /// When there is no shell to send the signal with.
    pub fn ask_to_stop(&self) {
        // The standard library sends no other signal than kill -9, and unsafe code is forbidden here.
        let status = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()]).status();
        assert!(status.expect("a shell can be run").success(), "the signal was not sent");
    }

    /// Waits until it ends by itself.
    pub async fn exit(mut self) -> Exit {
        let status = wait(&mut self.child, &self.output).await;
        self.output.exit(status)
    }

    /// Stops it in order and returns how that went and how long it took.
    pub async fn stop(self) -> (Exit, Duration) {
        let asked: Instant = clock::now();
        self.ask_to_stop();
        let exit = self.exit().await;
        (exit, asked.elapsed())
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn write_config(home: &Home, config: &Config) -> PathBuf {
    let path = home.path().join("broker.toml");
    fs::write(&path, toml::to_string(config).expect("settings are TOML")).expect("the home of the test can be written");
    path
}

/// The addresses in the line that says that the broker is ready.
fn ready_line(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = log.lines().find(|line| line.contains("\"message\":\"ready\"") && line.ends_with('}'))?;
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = |key: &str| event[key].as_str()?.parse().ok();
    Some((address("grpc_address")?, address("metrics_address")?))
}
