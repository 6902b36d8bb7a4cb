//! Docker, by its API: the only module that names it.

mod container;
mod network;
mod streams;
mod warm;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bollard::{
    container::AttachContainerResults,
    errors::Error,
    models::{
        ContainerCreateBody, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum, VolumeCreateRequest,
    },
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
        ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder, StartContainerOptions,
        StopContainerOptionsBuilder,
    },
};
use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt as _, sync::OnceCell};

use crate::clock;

use super::{
    Answer, Container, Doing, Exec, Executed, Happening, Host, LogLine, LogQuery, Network, RuntimeError,
    SandboxRuntime, Seen, Told, Usage,
};

/// What containers, networks and volumes of one installation have in common.
const INSTALLATION: &str = "aintandem.installation";
const ID: &str = "aintandem.sandbox";
const WORKSPACE: &str = "aintandem.workspace";
const SPEC: &str = "aintandem.spec";
/// The network in which a container waits, or has waited.
const ROOM: &str = "aintandem.room";

/// How long one question may take. A stop takes its time of grace in addition.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long the walls of a network may take.
const WALLS: Duration = Duration::from_secs(30);

/// How long what the machine has is not asked again: Docker looks at much to tell it.
const HOST_HOLDS: Duration = Duration::from_secs(60);

/// How old a container is that puts up walls when nobody waits for it any more.
const LEFT_BEHIND_S: i64 = 120;

/// A Docker daemon. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Docker {
    /// Such as `unix:///var/run/docker.sock`; empty: what `DOCKER_HOST` says, or the socket of this machine.
    host: String,
    /// Once it has answered, in the version of the API that both speak.
    connected: Arc<OnceCell<bollard::Docker>>,
    /// What the machine had when it was last asked.
    machine: Arc<Mutex<Option<(Host, Instant)>>>,
    /// Where containers have waited that are about to start, by sandbox.
    rooms: Arc<Mutex<HashMap<String, String>>>,
    /// Tells what this installation has made from what others have.
    installation: String,
    /// The image that walls are put up with.
    image: String,
}

impl Docker {
    /// Does not ask whether it answers. `host`: such as `unix:///var/run/docker.sock`; empty: what `DOCKER_HOST` says, or the socket
    /// of this machine. `image`: has `nft`.
    pub(crate) fn new(host: &str, installation: &str, image: &str) -> Self {
        let (host, installation, image) = (host.to_owned(), installation.to_owned(), image.to_owned());
        let (connected, machine, rooms) = (Arc::default(), Arc::default(), Arc::default());
        Self { host, connected, machine, rooms, installation, image }
    }

    /// Whether its files are this machine's.
    fn is_local(&self) -> bool {
        let from_environment = || std::env::var("DOCKER_HOST").unwrap_or_default();
        let host = if self.host.is_empty() { from_environment() } else { self.host.clone() };
        host.is_empty() || host.starts_with("unix://")
    }

    async fn api(&self) -> Result<bollard::Docker, RuntimeError> {
        let connect = || async {
            let connected = if self.host.is_empty() {
                bollard::Docker::connect_with_defaults()
            } else {
                bollard::Docker::connect_with_host(&self.host)
            };
            connected?.with_timeout(TIMEOUT).negotiate_version().await
        };
        let api = self.connected.get_or_try_init(connect).await;
        api.cloned().map_err(|error| RuntimeError::Unavailable(error.to_string()))
    }

    fn of_create(&self, error: Error, image: &str) -> RuntimeError {
        if is_status(&error, 404) { RuntimeError::NoImage(image.to_owned()) } else { of(error) }
    }

    async fn make(&self, container: &Container) -> Result<(), RuntimeError> {
        let name = name(&container.id);
        let known = self.api().await?.inspect_container(&name, None::<InspectContainerOptions>).await;
        match known {
            Ok(known) => {
                let labels = known.config.as_ref().and_then(|config| config.labels.as_ref());
                let spec = labels.and_then(|labels| labels.get(SPEC));
                if spec == Some(&container::spec(container)) || self.dress(&known, container).await? {
                    return Ok(());
                }
                self.unmake(&container.id, false).await?;
            }
            Err(error) if is_status(&error, 404) => {}
            Err(error) => return Err(of(error)),
        }
        self.make_volume(container).await?;
        let body = container::body(container, &self.installation);
        self.create_as(&container.id, body, &container.image).await
    }

    async fn create_as(&self, id: &str, body: ContainerCreateBody, image: &str) -> Result<(), RuntimeError> {
        let options = CreateContainerOptionsBuilder::default().name(&name(id)).build();
        match self.api().await?.create_container(Some(options), body).await {
            Ok(_) => Ok(()),
            // Somebody else was quicker.
            Err(error) if is_status(&error, 409) => Ok(()),
            Err(error) => Err(self.of_create(error, image)),
        }
    }

    /// With a limit of its own where the host's file system has quotas; elsewhere what is in it is counted.
    async fn make_volume(&self, container: &Container) -> Result<(), RuntimeError> {
        let labels = [(INSTALLATION, &self.installation), (ID, &container.id), (WORKSPACE, &container.workspace)];
        let request = |options: HashMap<String, String>| VolumeCreateRequest {
            name: Some(container::volume(&container.id)),
            driver: Some("local".to_owned()),
            driver_opts: Some(options),
            labels: Some(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).clone())).collect()),
            ..VolumeCreateRequest::default()
        };
        let limited = HashMap::from([("size".to_owned(), container.disk_bytes.to_string())]);
        match self.api().await?.create_volume(request(limited)).await {
            Ok(_) => Ok(()),
            // One that is there with other options stays what it is.
            Err(error) if is_status(&error, 409) => Ok(()),
            Err(error) if error.to_string().contains("quota") => {
                self.api().await?.create_volume(request(HashMap::new())).await.map(drop).map_err(of)
            }
            Err(error) => Err(of(error)),
        }
    }

    async fn unmake(&self, id: &str, with_volume: bool) -> Result<(), RuntimeError> {
        self.rooms.lock().remove(id);
        let force = RemoveContainerOptionsBuilder::default().force(true).build();
        match self.api().await?.remove_container(&name(id), Some(force)).await {
            Ok(()) => {}
            // Gone, or going: somebody else was quicker.
            Err(error) if is_status(&error, 404) || is_status(&error, 409) => {}
            Err(error) => return Err(of(error)),
        }
        if !with_volume {
            return Ok(());
        }
        let force = RemoveVolumeOptionsBuilder::default().force(true).build();
        match self.api().await?.remove_volume(&container::volume(id), Some(force)).await {
            Ok(()) => Ok(()),
            Err(error) if is_status(&error, 404) => Ok(()),
            Err(error) => Err(of(error)),
        }
    }

    async fn hand_over(&self, id: &str, assignment: &[u8]) -> Result<(), RuntimeError> {
        let name = name(id);
        let gone = |error: Error| if is_status(&error, 404) { RuntimeError::Gone(id.to_owned()) } else { of(error) };
        let attach = AttachContainerOptionsBuilder::default().stdin(true).stream(true).build();
        // Before it starts, so that it need not wait.
        let AttachContainerResults { mut input, .. } =
            self.api().await?.attach_container(&name, Some(attach)).await.map_err(gone)?;
        match self.api().await?.start_container(&name, None::<StartContainerOptions>).await {
            Ok(()) => {}
            // It runs: it was started a moment ago, and may wait for its assignment still.
            Err(error) if is_status(&error, 304) => {}
            Err(error) => return Err(gone(error)),
        }
        let lost =
            |error: std::io::Error| RuntimeError::Unavailable(format!("the assignment is not handed over: {error}"));
        input.write_all(assignment).await.map_err(lost)?;
        input.write_all(b"\n").await.map_err(lost)?;
        input.flush().await.map_err(lost)
    }

    async fn list(&self) -> Result<Vec<Seen>, RuntimeError> {
        let filters = HashMap::from([("label", vec![format!("{INSTALLATION}={}", self.installation)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self.api().await?.list_containers(Some(options)).await.map_err(of)?;
        let mut seen = Vec::with_capacity(found.len());
        for summary in found {
            let Some(id) = summary.labels.as_ref().and_then(|labels| labels.get(ID)).cloned() else {
                self.sweep(&summary).await;
                continue;
            };
            self.leave_late(&id, &summary).await;
            match summary_says(&summary) {
                Some(doing) => seen.push(Seen { id, doing }),
                // A list does not say how it ended.
                None => seen.extend(self.inspect(&id).await?),
            }
        }
        Ok(seen)
    }

    /// Removes a container that was to put up walls, and was left behind by a daemon or a control plane that was killed.
    async fn sweep(&self, summary: &ContainerSummary) {
        let age_s = summary.created.map_or(0, |created_s| clock::unix_ms() / 1_000 - created_s);
        let Some(id) = summary.id.as_deref().filter(|_| age_s > LEFT_BEHIND_S) else { return };
        let force = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = match self.api().await {
            Ok(api) => api.remove_container(id, Some(force)).await.map_err(of),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::debug!(%error, "a container that was left behind is removed later");
        }
    }

    async fn inspect(&self, id: &str) -> Result<Option<Seen>, RuntimeError> {
        let found = match self.api().await?.inspect_container(&name(id), None::<InspectContainerOptions>).await {
            Ok(found) => found,
            Err(error) if is_status(&error, 404) => return Ok(None),
            Err(error) => return Err(of(error)),
        };
        let state = found.state.unwrap_or_default();
        let doing = match state.status {
            Some(ContainerStateStatusEnum::CREATED) => Doing::Created,
            Some(
                ContainerStateStatusEnum::RUNNING
                | ContainerStateStatusEnum::PAUSED
                | ContainerStateStatusEnum::RESTARTING,
            ) => Doing::Running,
            // On its way out.
            Some(ContainerStateStatusEnum::REMOVING) => return Ok(None),
            _ => {
                Doing::Ended { exit_code: state.exit_code.unwrap_or(-1), out_of_memory: state.oom_killed == Some(true) }
            }
        };
        Ok(Some(Seen { id: id.to_owned(), doing }))
    }
}

/// What a list says of a container; None: only a closer look tells.
fn summary_says(summary: &ContainerSummary) -> Option<Doing> {
    match summary.state {
        Some(ContainerSummaryStateEnum::CREATED) => Some(Doing::Created),
        Some(
            ContainerSummaryStateEnum::RUNNING
            | ContainerSummaryStateEnum::PAUSED
            | ContainerSummaryStateEnum::RESTARTING,
        ) => Some(Doing::Running),
        _ => None,
    }
}

/// The container of a sandbox.
fn name(id: &str) -> String {
    format!("tandem-{id}")
}

fn is_status(error: &Error, code: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == code)
}

fn of(error: Error) -> RuntimeError {
    match error {
        Error::DockerResponseServerError { message, .. } if message.contains("no space left on device") => {
            RuntimeError::Full(message)
        }
        Error::DockerResponseServerError { message, .. }
            if message.contains("Pool overlaps") || message.contains("overlaps with existing") =>
        {
            RuntimeError::AddressesTaken(message)
        }
        Error::DockerResponseServerError { status_code, message } if (400..500).contains(&status_code) => {
            RuntimeError::Refused(message)
        }
        // What cannot be started is told as an error of the server.
        Error::DockerResponseServerError { message, .. }
            if message.contains("OCI runtime create failed") || message.contains("executable file not found") =>
        {
            RuntimeError::Refused(message)
        }
        error => RuntimeError::Unavailable(error.to_string()),
    }
}

/// How large the file system of a directory is; None where it is not there, as in a container.
fn disk_bytes(dir: &str) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    found.f_blocks.checked_mul(found.f_frsize)
}

impl SandboxRuntime for Docker {
    fn host(&self) -> Answer<'_, Host> {
        Box::pin(async {
            let known = *self.machine.lock();
            if let Some((host, since)) = known
                && clock::now().saturating_duration_since(since) < HOST_HOLDS
            {
                return Ok(host);
            }
            let info = self.api().await?.info().await.map_err(of)?;
            let memory_bytes = info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
            let disk_bytes = info.docker_root_dir.filter(|_| self.is_local()).and_then(|dir| disk_bytes(&dir));
            let cpus = info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or(0);
            let host = Host { memory_bytes, cpus, disk_bytes };
            *self.machine.lock() = Some((host, clock::now()));
            Ok(host)
        })
    }

    fn image_id<'a>(&'a self, image: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            match self.api().await?.inspect_image(image).await {
                Ok(found) => Ok(Some(found.id.unwrap_or_default())),
                Err(error) if is_status(&error, 404) => Ok(None),
                Err(error) => Err(of(error)),
            }
        })
    }

    fn wall_in<'a>(&'a self, network: &'a Network) -> Answer<'a, ()> {
        Box::pin(async move {
            let late = |_| RuntimeError::Unavailable("the walls of a network take too long".to_owned());
            tokio::time::timeout(WALLS, self.put_up(network)).await.map_err(late)?
        })
    }

    fn tear_down<'a>(&'a self, network: &'a Network) -> Answer<'a, ()> {
        Box::pin(async move {
            let late = |_| RuntimeError::Unavailable("the walls of a network take too long".to_owned());
            tokio::time::timeout(WALLS, self.take_down(network)).await.map_err(late)?
        })
    }

    fn create<'a>(&'a self, container: &'a Container) -> Answer<'a, ()> {
        Box::pin(self.make(container))
    }

    fn warm_up<'a>(&'a self, container: &'a Container) -> Answer<'a, ()> {
        Box::pin(self.make_waiting(container))
    }

    fn start<'a>(&'a self, id: &'a str, assignment: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            let handed_over = self.hand_over(id, assignment).await;
            self.leave_room(id);
            handed_over
        })
    }

    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::default().t(seconds).build();
            match self.api().await?.stop_container(&name(id), Some(options)).await {
                Ok(()) => Ok(()),
                Err(error) if is_status(&error, 304) || is_status(&error, 404) => Ok(()),
                Err(error) => Err(of(error)),
            }
        })
    }

    fn remove<'a>(&'a self, id: &'a str, with_volume: bool) -> Answer<'a, ()> {
        Box::pin(self.unmake(id, with_volume))
    }

    fn look(&self) -> Answer<'_, Vec<Seen>> {
        Box::pin(self.list())
    }

    fn look_at<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Seen>> {
        Box::pin(self.inspect(id))
    }

    fn logs<'a>(&'a self, id: &'a str, wanted: &'a LogQuery) -> Answer<'a, Told<LogLine>> {
        Box::pin(self.lines(id, wanted))
    }

    fn usage<'a>(&'a self, id: &'a str) -> Answer<'a, Usage> {
        Box::pin(self.taken(id))
    }

    fn disk<'a>(&'a self, ids: &'a [String]) -> Answer<'a, HashMap<String, u64>> {
        Box::pin(async move { Ok(self.count(ids).await) })
    }

    fn exec<'a>(&'a self, id: &'a str, wanted: &'a Exec) -> Answer<'a, Executed> {
        Box::pin(self.execute(id, wanted))
    }

    fn happenings(&self) -> Told<Happening> {
        self.listen()
    }
}
