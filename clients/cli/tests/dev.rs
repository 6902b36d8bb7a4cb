//! The command as a user runs it, against a broker of its own (`tandem dev`).

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// Looks at a child that must end, so often and so long.
const LOOKS: u32 = 1_000;
const GLANCE: Duration = Duration::from_millis(10);

struct Dev {
    broker: Child,
    server: String,
    _data: TempDir,
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.broker.kill().ok();
        self.broker.wait().ok();
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.env_remove("TANDEM_SERVER").env_remove("TANDEM_WORKSPACE").args(arguments);
    command
}

impl Dev {
    fn start() -> Self {
        let data = TempDir::new().expect("a directory");
        let path = data.path().to_str().expect("a path");
        let ports = ["--port", "0", "--metrics-port", "0", "--http-port", "0"];
        let mut broker = command(&["dev", "--json", "--data-dir", path])
            .args(ports)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let mut line = String::new();
        BufReader::new(broker.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("the broker says where it is");
        let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let server = said["server"].as_str().expect("an address").to_owned();
        Self { broker, server, _data: data }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(&[&["--server", &self.server], arguments].concat())
    }

    /// Runs a command that must succeed; returns what it printed.
    fn tandem(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("the command runs");
        assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.tandem(&[arguments, &["--json"]].concat())).expect("one JSON document")
    }

    fn with_alice_and_bob() -> Self {
        let dev = Self::start();
        for sandbox in ["alice", "bob"] {
            dev.tandem(&["sandbox", "register", sandbox]);
        }
        dev
    }
}

/// How a child ended that must end by itself.
fn ended(child: &mut Child, otherwise: &str) -> ExitStatus {
    for _ in 0..LOOKS {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        thread::sleep(GLANCE);
    }
    child.kill().ok();
    child.wait().ok();
    panic!("{otherwise}");
}

/// As in `tandem sub bob --no-ack | head -1`: with one message in the inbox nothing more is ever printed.
#[test]
fn commands_that_wait_end_when_nobody_reads_on() {
    let dev = Dev::with_alice_and_bob();
    dev.tandem(&["pub", "--from", "alice", "--to", "bob", "hello"]);
    let waiting: [&[&str]; 3] =
        [&["sub", "bob", "--no-ack"], &["history", "--follow"], &["events", "--follow", "--from-event", "1"]];
    for arguments in waiting {
        let mut child =
            dev.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the command runs");
        let mut line = String::new();
        let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
        while line.trim().is_empty() {
            reader.read_line(&mut line).expect("a line");
        }
        drop(reader);
        let status = ended(&mut child, &format!("tandem {arguments:?} goes on although nobody reads"));
        assert_eq!(status.code(), Some(0), "{arguments:?}");
    }
    let bob = dev.json(&["sub", "bob", "--count", "1"]);
    assert_eq!(bob["attempt"], 1, "what was held went back without a failed attempt");
}

#[test]
fn line_15_dead_letters_from_the_command_line() {
    let dev = Dev::with_alice_and_bob();
    for text in ["one", "two", "three"] {
        dev.tandem(&["pub", "--from", "alice", "--to", "bob", text]);
    }
    dev.tandem(&["nack", "bob", "--count", "3", "--dead-letter", "--reason", "cannot be read"]);
    let list = dev.tandem(&["dlq", "list", "--sandbox", "bob", "--reason", "rejected"]);
    assert_eq!(list.lines().count(), 4, "a heading and three rows:\n{list}");
    let shown = dev.json(&["dlq", "show", "bob", "2"]);
    assert!(shown.to_string().contains("cannot be read"), "{shown}");
    assert!(dev.tandem(&["dlq", "show", "bob", "2"]).contains("two"));
    dev.tandem(&["sandbox", "register", "carol"]);
    let redriven =
        dev.tandem(&["dlq", "redrive", "--sandbox", "bob", "--sequence", "2", "--to", "carol", "--rate", "10"]);
    assert_eq!(redriven.trim(), "redriven: 1");
    assert!(dev.tandem(&["sub", "carol", "--count", "1", "--ack-wait", "5s"]).contains("two"));
    assert_eq!(dev.tandem(&["dlq", "purge", "--sandbox", "bob"]).trim(), "purged: 2");
    assert_eq!(dev.tandem(&["dlq", "list"]).trim(), "");
}

#[test]
fn line_15_topics_from_the_command_line() {
    let dev = Dev::with_alice_and_bob();
    dev.tandem(&["topic", "create", "build.done"]);
    dev.tandem(&["pub", "--from", "alice", "--topic", "build.done", "before"]);
    dev.tandem(&["topic", "follow", "bob", "build.*", "--from-sequence", "1"]);
    dev.tandem(&["pub", "--from", "alice", "--topic", "build.done", "after"]);
    let seen = dev.tandem(&["sub", "bob", "--count", "2"]);
    assert!(seen.contains("before") && seen.contains("after"), "{seen}");
    assert!(dev.tandem(&["topic", "follows", "bob"]).contains("build.*"));
    assert!(dev.tandem(&["topic", "list"]).contains("build.done"));
    dev.tandem(&["topic", "unfollow", "bob", "build.*"]);
    dev.tandem(&["topic", "delete", "build.done"]);
    assert_eq!(dev.tandem(&["topic", "list"]).trim(), "");
}

/// Who reads an inbox goes on reading when it follows another topic.
#[test]
fn a_reader_goes_on_when_its_sandbox_follows_another_topic() {
    let dev = Dev::with_alice_and_bob();
    dev.tandem(&["topic", "create", "news"]);
    let mut reader = dev
        .command(&["sub", "bob", "--timeout", "20s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command runs");
    dev.tandem(&["pub", "--from", "alice", "--to", "bob", "direct"]);
    let mut lines = BufReader::new(reader.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut comes = |text: &str| lines.any(|line| line.contains(text));
    assert!(comes("direct"), "the inbox is open");
    dev.tandem(&["topic", "follow", "bob", "news"]);
    dev.tandem(&["pub", "--from", "alice", "--topic", "news", "from the topic"]);
    assert!(comes("from the topic"), "the reader has ended");
    drop(lines);
    let status = reader.wait().expect("a child can be waited for");
    assert_eq!(status.code(), Some(0));
}

/// Three nodes with the first one's port for clients, in a directory of their own.
fn three_nodes(port: &str, data: &TempDir) -> Command {
    let ports = ["--port", port, "--metrics-port", "0", "--peer-port", "0", "--http-port", "0"];
    let mut nodes = command(&["dev", "--nodes", "3"]);
    nodes.args(ports).arg("--data-dir").arg(data.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    nodes
}

/// What answers there is no node of this cluster, however ready it is.
#[test]
fn a_cluster_does_not_take_another_broker_for_its_own() {
    let other = Dev::start();
    let port = other.server.rsplit(':').next().expect("a port");
    let data = TempDir::new().expect("a directory");
    let mut nodes = three_nodes(port, &data).spawn().expect("the command runs");
    let status = ended(&mut nodes, "the nodes run beside the broker that has their port");
    let Output { stdout, stderr, .. } = nodes.wait_with_output().expect("its output can be read");
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!((status.code(), stdout.len()), (Some(1), 0), "{stderr}");
    for says in ["code: ADDRESS_IN_USE", &format!("127.0.0.1:{port}"), "--port 0"] {
        assert!(stderr.contains(says), "it does not say {says:?}: {stderr}");
    }
}

/// The processes that this one has started.
#[cfg(target_os = "linux")]
fn children_of(parent: u32) -> Vec<u32> {
    let is_child = |stat: &str| {
        // The second field is the name, in parentheses; the parent is the second one behind it.
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(parent.to_string().as_str())
    };
    let processes = std::fs::read_dir("/proc").expect("the processes can be listed").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    pids.filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_child(&stat))).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_cluster_whose_nodes_have_all_ended_ends_too() {
    let data = TempDir::new().expect("a directory");
    let mut nodes = three_nodes("0", &data).spawn().expect("the command runs");
    let mut line = String::new();
    let mut stdout = BufReader::new(nodes.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("the nodes say where they are");
    assert_eq!(line, "3 brokers are ready, one cluster. Ctrl-C stops them.\n");
    let children = children_of(nodes.id());
    assert_eq!(children.len(), 3, "{children:?}");
    for child in children {
        let killed = Command::new("kill").args(["-9", &child.to_string()]).status().expect("a node can be killed");
        assert!(killed.success());
    }
    let status = ended(&mut nodes, "no node is left, and the command goes on");
    let mut stderr = String::new();
    nodes.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    assert_eq!(status.code(), Some(1), "{stderr}");
    for says in ["node 1 has ended", "node 2 has ended", "node 3 has ended", "code: NODE_ENDED"] {
        assert!(stderr.contains(says), "it does not say {says:?}: {stderr}");
    }
}
