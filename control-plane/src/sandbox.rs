//! Where sandboxes run: the seam, and what stands behind it.
//!
//! A [`SandboxRuntime`] knows containers, not what they are wanted for: `service` decides, and this does. Docker's API is named below
//! `docker` and nowhere else.

mod docker;
#[cfg(test)]
pub(crate) mod fake;

use std::{collections::HashMap, fmt, net::Ipv4Addr, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};

pub(crate) use self::docker::Docker;

/// What a runtime answers, when it does.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, RuntimeError>>;
/// What a runtime tells as it happens.
pub(crate) type Told<T> = BoxStream<'static, Result<T, RuntimeError>>;

/// Runs containers. The contract, which `fake` and `docker` keep alike:
///
/// - A container is known by the id of its sandbox; there is at most one for each.
/// - Every call can be made again: what is there already, runs already or is gone already is no error.
/// - A container runs nothing of a user's before it has its assignment, and no container starts in a network without walls.
/// - Only what this installation has made is seen and touched.
pub(crate) trait SandboxRuntime: Send + Sync + 'static {
    /// What the machine has, or had a minute ago.
    fn host(&self) -> Answer<'_, Host>;

    /// What the name of an image stands for; None: it is not there, and nothing is pulled.
    fn image_id<'a>(&'a self, image: &'a str) -> Answer<'a, Option<String>>;

    /// Puts up the walls of a network and then the network, or changes its walls to what they are to be.
    ///
    /// # Errors
    /// [`RuntimeError::AddressesTaken`].
    fn wall_in<'a>(&'a self, network: &'a Network) -> Answer<'a, ()>;

    /// Takes a network down, and its walls after it. Its containers must be gone.
    fn tear_down<'a>(&'a self, network: &'a Network) -> Answer<'a, ()>;

    /// Makes a container that does not run yet; one of other properties is replaced. Its volume stays what it was.
    ///
    /// # Errors
    /// [`RuntimeError::NoImage`].
    fn create<'a>(&'a self, container: &'a Container) -> Answer<'a, ()>;

    /// Makes and starts a container that waits for its assignment, with no name and of no workspace, in a network of which nothing
    /// can be reached. Once [`create`] is asked for one with the same id, image, disk and temporary memory, it becomes that one
    /// while it runs, if it can; it leaves the network where it waited after its [`start`], and at the latest when somebody looks.
    ///
    /// [`create`]: SandboxRuntime::create
    /// [`start`]: SandboxRuntime::start
    ///
    /// # Errors
    /// [`RuntimeError::NoImage`].
    fn warm_up<'a>(&'a self, container: &'a Container) -> Answer<'a, ()>;

    /// Starts a container and gives it its assignment: one line, which holds secrets and stands nowhere.
    ///
    /// # Errors
    /// [`RuntimeError::Gone`] where there is none, [`RuntimeError::Refused`] where it cannot start.
    fn start<'a>(&'a self, id: &'a str, assignment: &'a [u8]) -> Answer<'a, ()>;

    /// Asks a container to stop, and kills it after `grace`.
    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> Answer<'a, ()>;

    /// Removes a container whatever it does, and its volume where that is wanted.
    fn remove<'a>(&'a self, id: &'a str, with_volume: bool) -> Answer<'a, ()>;

    /// All containers of this installation.
    fn look(&self) -> Answer<'_, Vec<Seen>>;

    /// One of them.
    fn look_at<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Seen>>;

    /// What a container has printed, and with `follow` prints, until it ends.
    fn logs<'a>(&'a self, id: &'a str, wanted: &'a LogQuery) -> Answer<'a, Told<LogLine>>;

    /// What a container takes.
    fn usage<'a>(&'a self, id: &'a str) -> Answer<'a, Usage>;

    /// Bytes of the volumes of these sandboxes; one that cannot be counted is left out.
    fn disk<'a>(&'a self, ids: &'a [String]) -> Answer<'a, HashMap<String, u64>>;

    /// Runs a command in a container that runs, to its end.
    ///
    /// # Errors
    /// [`RuntimeError::NoProgram`], [`RuntimeError::NoRoom`].
    fn exec<'a>(&'a self, id: &'a str, wanted: &'a Exec) -> Answer<'a, Executed>;

    /// What happens to containers, as it happens. Whoever listens looks first: nothing is told twice.
    fn happenings(&self) -> Told<Happening>;
}

/// Why a runtime could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RuntimeError {
    /// It does not answer, or fails.
    #[error("Docker does not answer: {0}")]
    Unavailable(String),
    /// The image is not there.
    #[error("there is no image {0:?} on this host")]
    NoImage(String),
    /// A program of a command is not in the image, or cannot be run: it, and what Docker says.
    #[error("the program {0:?} cannot be run: {1}")]
    NoProgram(String, String),
    /// A container that is at a limit of its own, of processes or of memory: what Docker says.
    #[error("nothing more can be started in the sandbox, which may be at its limit of processes or of memory: {0}")]
    NoRoom(String),
    /// The container is not there.
    #[error("there is no container of sandbox {0:?}")]
    Gone(String),
    /// It cannot be done, whoever tries again.
    #[error("Docker refuses: {0}")]
    Refused(String),
    /// The addresses of a network are another's on this host.
    #[error("the addresses are taken: {0}")]
    AddressesTaken(String),
    /// The disk of the host is full.
    #[error("the disk of the host is full: {0}")]
    Full(String),
}

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Host {
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: u32,
    /// Of the file system that volumes are in; None: it cannot be seen from here.
    pub(crate) disk_bytes: Option<u64>,
}

/// The network of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) workspace: String,
    /// Short, of letters and digits, and no other's: names interfaces and tables.
    pub(crate) key: String,
    /// The network's first three numbers, such as 10.213.7: it has 254 addresses, the first of which is the host's.
    pub(crate) subnet: [u8; 3],
    /// The only port of the host that can be reached; None: none.
    pub(crate) host_port: Option<u16>,
    /// What else can be reached.
    pub(crate) allowed: Vec<(Ipv4Addr, u16)>,
    /// What one container may send in a second, in KiB; None: any number.
    pub(crate) send_kib_per_second: Option<u32>,
}

impl Network {
    /// The host, seen from inside.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, 1)
    }
}

/// A container that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    /// The sandbox.
    pub(crate) id: String,
    pub(crate) workspace: String,
    /// As it calls itself inside.
    pub(crate) name: String,
    pub(crate) image: String,
    /// See [`Network::key`].
    pub(crate) network: String,
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: f64,
    pub(crate) pids: u32,
    /// Of its volume, and of one file in it.
    pub(crate) disk_bytes: u64,
    /// Of `/tmp`, which is memory.
    pub(crate) tmp_bytes: u64,
    /// Names and addresses that it can look up.
    pub(crate) hosts: Vec<(String, Ipv4Addr)>,
}

/// A container as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The sandbox.
    pub(crate) id: String,
    pub(crate) doing: Doing,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It was made and has never run, or is about to.
    Created,
    Running,
    Ended {
        exit_code: i64,
        out_of_memory: bool,
    },
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogQuery {
    /// The last ones; None: all that are kept.
    pub(crate) tail: Option<u32>,
    /// From this second since 1970 on.
    pub(crate) since_s: Option<i32>,
    pub(crate) follow: bool,
}

/// What a container has printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// RFC 3339, to the nanosecond.
    pub(crate) time: String,
    /// `stdout` or `stderr`.
    pub(crate) stream: &'static str,
    pub(crate) text: String,
}

/// What a container takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of all its life, in nanoseconds of one processor.
    pub(crate) cpu_ns: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) pids: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

/// A command in a container.
#[derive(Clone)]
pub(crate) struct Exec {
    pub(crate) command: Vec<String>,
    /// Beside those of the container.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) timeout: Duration,
    /// Bytes of output that are kept, of each kind.
    pub(crate) most: usize,
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec").field("command", &self.command).finish_non_exhaustive()
    }
}

/// What came of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Executed {
    /// None: it took too long, and runs on.
    pub(crate) exit_code: Option<i64>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// There was more output than is kept.
    pub(crate) truncated: bool,
}

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happening {
    /// The sandbox.
    pub(crate) id: String,
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Ended,
    /// A process was killed because the container has no more memory.
    OutOfMemory,
}
