//! What Docker tells of containers: lines, numbers, happenings; and commands in them.

use std::{collections::HashMap, path::PathBuf};

use bollard::{
    container::LogOutput,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
    models::EventMessage,
    query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder, StatsOptionsBuilder},
};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, future, stream};

use super::{Docker, ID, INSTALLATION, container, is_status, name, of};
use crate::sandbox::{Exec, Executed, Happening, LogLine, LogQuery, RuntimeError, Told, Usage, What};

/// Bytes of a line; a longer one is cut.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Files of a volume that are counted; one that has more is taken for full.
const MAX_FILES: u64 = 1_000_000;
/// How Docker begins to say on a program's own output that it could not start it, and where the reason follows.
const NOT_STARTED: &str = "OCI runtime exec failed";
const REASON: &str = "unable to start container process: ";
/// What is wrong with a program itself, as the kernel and Docker put it. Anything else kept a sound one from being started.
const OF_A_PROGRAM: [&str; 8] = [
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "exec format error",
    "is a directory",
    "not a directory",
    "argument list too long",
    "file name too long",
];

impl Docker {
    pub(super) async fn lines(&self, id: &str, wanted: &LogQuery) -> Result<Told<LogLine>, RuntimeError> {
        let mut options =
            LogsOptionsBuilder::default().stdout(true).stderr(true).timestamps(true).follow(wanted.follow);
        options = options.tail(&wanted.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()));
        if let Some(since) = wanted.since_s {
            options = options.since(since);
        }
        let mut parts = Box::pin(self.api().await?.logs(&name(id), Some(options.build())));
        // The first one says whether there is a container.
        let first = match parts.next().await {
            None => return Ok(stream::empty().boxed()),
            Some(Err(error)) if is_status(&error, 404) => return Err(RuntimeError::Gone(id.to_owned())),
            Some(Err(error)) => return Err(of(error)),
            Some(Ok(first)) => first,
        };
        let parts = stream::once(future::ready(Ok(first))).chain(parts);
        Ok(parts.map_err(of).map_ok(line).boxed())
    }

    pub(super) async fn taken(&self, id: &str) -> Result<Usage, RuntimeError> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let first = Box::pin(self.api().await?.stats(&name(id), Some(options))).next().await;
        let stats = match first {
            Some(Ok(stats)) => stats,
            Some(Err(error)) if !is_status(&error, 404) => return Err(of(error)),
            _ => return Err(RuntimeError::Gone(id.to_owned())),
        };
        let memory = stats.memory_stats.unwrap_or_default();
        // Pages of files can be given back, and count for nobody.
        let cached = memory.stats.as_ref().and_then(|stats| {
            ["total_inactive_file", "inactive_file"].iter().find_map(|name| stats.get(*name).copied())
        });
        let networks = stats.networks.unwrap_or_default();
        let sum =
            |of: fn(&bollard::models::ContainerNetworkStats) -> Option<u64>| networks.values().filter_map(of).sum();
        Ok(Usage {
            cpu_ns: stats.cpu_stats.and_then(|cpu| cpu.cpu_usage).and_then(|usage| usage.total_usage).unwrap_or(0),
            memory_bytes: memory.usage.unwrap_or(0).saturating_sub(cached.unwrap_or(0)),
            memory_limit_bytes: memory.limit.unwrap_or(0),
            pids: stats.pids_stats.and_then(|pids| pids.current).unwrap_or(0),
            received_bytes: sum(|network| network.rx_bytes),
            sent_bytes: sum(|network| network.tx_bytes),
        })
    }

    pub(super) async fn execute(&self, id: &str, wanted: &Exec) -> Result<Executed, RuntimeError> {
        let gone = |error| {
            let is_gone = is_status(&error, 404) || is_status(&error, 409);
            if is_gone { RuntimeError::Gone(id.to_owned()) } else { of(error) }
        };
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(wanted.command.clone()),
            env: Some(wanted.environment.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            ..CreateExecOptions::default()
        };
        let made = self.api().await?.create_exec(&name(id), options).await.map_err(gone)?;
        let started = self.api().await?.start_exec(&made.id, None::<StartExecOptions>).await.map_err(gone)?;
        let mut executed = Executed::default();
        if let StartExecResults::Attached { output, .. } = started {
            let reading = read(output, &mut executed, wanted.most);
            if tokio::time::timeout(wanted.timeout, reading).await.is_err() {
                return Ok(executed);
            }
        }
        let ended = self.api().await?.inspect_exec(&made.id).await.map_err(of)?;
        executed.exit_code = ended.exit_code;
        // Whatever has run had a number.
        match not_started(&executed).filter(|_| ended.pid.unwrap_or(0) == 0) {
            Some(why) => Err(at_fault(wanted.command.first().map_or("", String::as_str), why)),
            None => Ok(executed),
        }
    }

    pub(super) fn listen(&self) -> Told<Happening> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let filters = HashMap::from([
            ("type", words(&["container"])),
            ("event", words(&["die", "oom"])),
            ("label", vec![format!("{INSTALLATION}={}", self.installation)]),
        ]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let this = self.clone();
        let told = stream::once(async move { this.api().await.map(|api| api.events(Some(options)).map_err(of)) });
        told.try_flatten().try_filter_map(|event| future::ready(Ok(happening(event)))).boxed()
    }

    /// Bytes of volumes: counted where this process may look at them, else by the sandbox's own `du`, which is of its image and
    /// cannot be changed.
    pub(super) async fn count(&self, ids: &[String]) -> HashMap<String, u64> {
        let mut counted = HashMap::new();
        for id in ids {
            let Ok(api) = self.api().await else { break };
            let Ok(volume) = api.inspect_volume(&container::volume(id)).await else { continue };
            let folder = PathBuf::from(volume.mountpoint);
            let bytes = match tokio::task::spawn_blocking(move || bytes_below(&folder)).await {
                Ok(Ok(bytes)) => Some(bytes),
                _ => self.asked(id).await,
            };
            counted.extend(bytes.map(|bytes| (id.clone(), bytes)));
        }
        counted
    }

    async fn asked(&self, id: &str) -> Option<u64> {
        let command = ["du", "-skx", "/work"].map(str::to_owned).to_vec();
        let timeout = std::time::Duration::from_secs(10);
        let exec = Exec { command, environment: Vec::new(), timeout, most: 1_024 };
        let executed = self.execute(id, &exec).await.ok()?;
        let text = String::from_utf8_lossy(&executed.stdout).into_owned();
        text.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1_024)
    }
}

/// What files below a folder take on the disk. Links are not followed.
fn bytes_below(folder: &std::path::Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut bytes, mut files) = (0_u64, 0_u64);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Removed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && files > 0 => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let Ok(metadata) = entry.as_ref().map_err(drop).and_then(|entry| entry.metadata().map_err(drop)) else {
                continue;
            };
            bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            files += 1;
            if files > MAX_FILES {
                return Ok(u64::MAX);
            }
            if metadata.is_dir()
                && let Ok(entry) = entry
            {
                folders.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

/// Why a program was not started, as Docker says it in the program's place.
fn not_started(executed: &Executed) -> Option<String> {
    let text = String::from_utf8_lossy(&executed.stdout);
    if !matches!(executed.exit_code, Some(126 | 127)) || !text.starts_with(NOT_STARTED) {
        return None;
    }
    let why = text.split_once(REASON).map_or(&*text, |(_, why)| why).trim_end();
    Some(why.strip_suffix(": unknown").unwrap_or(why).to_owned())
}

/// Whether the program or the sandbox is to blame for that.
fn at_fault(program: &str, why: String) -> RuntimeError {
    let is_program = OF_A_PROGRAM.iter().any(|text| why.contains(text));
    if is_program { RuntimeError::NoProgram(program.to_owned(), why) } else { RuntimeError::NoRoom(why) }
}

async fn read(
    mut output: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
    executed: &mut Executed,
    most: usize,
) {
    while let Some(Ok(part)) = output.next().await {
        let (kept, message) = match part {
            LogOutput::StdErr { message } => (&mut executed.stderr, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => (&mut executed.stdout, message),
            LogOutput::StdIn { .. } => continue,
        };
        let room = most.saturating_sub(kept.len()).min(message.len());
        kept.extend_from_slice(&message[..room]);
        executed.truncated |= room < message.len();
    }
}

/// Docker writes the time before each line.
fn line(part: LogOutput) -> LogLine {
    let stream = if matches!(part, LogOutput::StdErr { .. }) { "stderr" } else { "stdout" };
    let bytes = part.into_bytes();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_LINE_BYTES)]).into_owned();
    let (time, text) = text.split_once(' ').unwrap_or((text.as_str(), ""));
    LogLine { time: time.to_owned(), stream, text: text.trim_end_matches(['\n', '\r']).to_owned() }
}

fn happening(event: EventMessage) -> Option<Happening> {
    let id = event.actor?.attributes?.remove(ID)?;
    let what = match event.action?.as_str() {
        "die" => What::Ended,
        "oom" => What::OutOfMemory,
        _ => return None,
    };
    Some(Happening { id, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_apart() {
        let message = bytes::Bytes::from_static(b"2026-11-22T10:00:00.123456789Z hello  you\n");
        let line = line(LogOutput::StdErr { message });
        assert_eq!(
            (line.time.as_str(), line.stream, line.text.as_str()),
            ("2026-11-22T10:00:00.123456789Z", "stderr", "hello  you")
        );
    }

    #[test]
    fn what_docker_says_is_no_output() {
        let said = |exit_code, stdout: &str| Executed {
            exit_code: Some(exit_code),
            stdout: stdout.as_bytes().to_vec(),
            ..Executed::default()
        };
        let text = "OCI runtime exec failed: exec failed: unable to start container process: exec: \"x\": executable \
                    file not found in $PATH: unknown\r\n";
        let why = not_started(&said(126, text)).unwrap();
        assert_eq!(why, "exec: \"x\": executable file not found in $PATH");
        assert_eq!(not_started(&said(127, "OCI runtime exec failed")).unwrap(), "OCI runtime exec failed");
        assert!(matches!(at_fault("x", why), RuntimeError::NoProgram(program, _) if program == "x"));
        let full = "OCI runtime exec failed: exec failed: unable to start container process: read init-p: connection \
                    reset by peer: unknown\r\n";
        let why = not_started(&said(126, full)).unwrap();
        assert!(
            matches!(at_fault("sh", why), RuntimeError::NoRoom(why) if why == "read init-p: connection reset by peer")
        );
        assert!(not_started(&said(0, text)).is_none() && not_started(&said(126, "x: not found")).is_none());
    }

    #[test]
    fn what_is_in_a_folder_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let before = bytes_below(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/b"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("up")).unwrap();
        let after = bytes_below(dir.path()).unwrap();
        assert!((100_000..200_000).contains(&(after - before)), "{before} {after}");
        assert!(bytes_below(&dir.path().join("nowhere")).is_err());
    }
}
