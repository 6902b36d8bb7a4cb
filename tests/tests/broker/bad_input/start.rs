//! Starts that cannot be: exit code, stable code, and a text that says what to do.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use tandem_broker::Config;
use tandem_tests::{BrokerProcess, Exit, Home, broker_binary, broker_command, run_to_exit};

#[track_caller]
fn expect(exit: &Exit, exit_code: i32, code: &str, says: &[&str]) {
    assert_eq!(exit.code, Some(exit_code), "{exit:#?}");
    assert!(exit.stderr.contains("error: "), "{exit:#?}");
    assert!(exit.stderr.contains(&format!("code: {code}")), "{code} is not in {exit:#?}");
    for part in says {
        assert!(exit.stderr.contains(part), "{part:?} is not in {exit:#?}");
    }
    assert!(exit.stdout.is_empty() && !exit.stderr.contains("panicked"), "{exit:#?}");
}

async fn refused(home: &Home, config: &Config) -> Exit {
    match BrokerProcess::try_start(home, config).await {
        Err(exit) => exit,
        Ok(broker) => panic!("it started, at {}", broker.grpc_address()),
    }
}

/// A place where a broker has run and ended.
async fn used_home() -> (Home, Config) {
    let home = Home::new();
    let config = home.config();
    let (exit, _) = BrokerProcess::start(&home, &config).await.stop().await;
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    (home, config)
}

#[tokio::test]
async fn a_data_directory_of_another_version() {
    let (home, config) = used_home().await;
    let file = home.data().join("IDENTITY");
    let identity = fs::read_to_string(&file).unwrap();
    // Another version has its own way to tell that the file is whole.
    let (settings, _) = identity.split_once('#').unwrap();
    fs::write(&file, settings.replace("format = 3", "format = 4\nnew_key = true")).unwrap();
    let exit = refused(&home, &config).await;
    let says = ["has format 4, and this version reads format 3", "start the version that wrote it"];
    expect(&exit, 1, "DATA_DIRECTORY_MISMATCH", &says);
    fs::write(&file, identity).unwrap();
    BrokerProcess::start(&home, &config).await;
}

#[tokio::test]
async fn a_data_directory_of_another_node_or_with_other_shards() {
    let (home, mut config) = used_home().await;
    config.node_id = 7;
    let exit = refused(&home, &config).await;
    expect(&exit, 1, "DATA_DIRECTORY_MISMATCH", &["belongs to node 1, not to node 7", "set node_id to 1"]);
    config.node_id = 1;
    config.storage.shards = 3;
    let exit = refused(&home, &config).await;
    expect(&exit, 1, "DATA_DIRECTORY_MISMATCH", &["created with 2 shards, not 3", "set storage.shards to 2"]);
}

#[tokio::test]
async fn a_damaged_identity() {
    let (home, config) = used_home().await;
    fs::write(home.data().join("IDENTITY"), b"\xff\xfe not text").unwrap();
    let exit = refused(&home, &config).await;
    expect(&exit, 1, "DATA_DIRECTORY_MISMATCH", &["IDENTITY file", "choose another directory"]);
}

#[tokio::test]
async fn a_data_directory_in_use() {
    let home = Home::new();
    let config = home.config();
    let mut first = BrokerProcess::start(&home, &config).await;
    let exit = refused(&home, &config).await;
    let says = ["is in use by another process", "stop that process or choose another directory"];
    expect(&exit, 1, "STORAGE_LOCKED", &says);
    assert!(first.is_running() && first.get("/ready").await.status == 200, "the first one goes on");
}

#[tokio::test]
async fn a_data_directory_that_is_a_file() {
    let home = Home::new();
    fs::write(home.data(), "not a directory").unwrap();
    let exit = refused(&home, &home.config()).await;
    expect(&exit, 1, "STORAGE_UNUSABLE", &["it is a file; choose a directory"]);
    let below = Config { data_dir: home.data().join("below"), ..home.config() };
    expect(&refused(&home, &below).await, 1, "STORAGE_UNUSABLE", &["is a file, not a directory; choose another path"]);
}

/// Permissions do not bind root, so as root the broker runs as nobody, from a copy that nobody may read.
#[tokio::test]
async fn a_data_directory_without_write_permission() {
    let home = Home::new();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(home.data()).unwrap();
    fs::set_permissions(home.data(), fs::Permissions::from_mode(0o555)).unwrap();
    let as_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = if as_root {
        let copy = home.path().join("broker");
        fs::copy(broker_binary(), &copy).unwrap();
        let mut command = Command::new(copy);
        command.uid(65_534).gid(65_534).current_dir("/");
        command
    } else {
        broker_command()
    };
    command.arg("--data-dir").arg(home.data()).args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    command.args(["--set", "auth.open=true"]);
    let exit = run_to_exit(&home, command).await;
    expect(&exit, 1, "STORAGE_UNUSABLE", &["no write permission; change its owner or mode, or choose another"]);
}

#[tokio::test]
async fn a_port_in_use() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let grpc = Config { listen: address, ..home.config() };
    let metrics = Config { metrics_listen: address, ..home.config() };
    for (config, service) in [(grpc, "gRPC"), (metrics, "metrics")] {
        let exit = refused(&home, &config).await;
        let says =
            [&*format!("cannot listen on {address} for {service}"), "stop what uses it or choose another address"];
        expect(&exit, 1, "ADDRESS_IN_USE", &says);
        assert!(!home.data().exists(), "a mistake in an address leaves no data behind");
    }
}

async fn start_with_file(home: &Home, text: &str) -> Exit {
    let path = home.path().join("settings.toml");
    fs::write(&path, format!("{text}\n[auth]\nopen = true\n")).unwrap();
    let mut command = broker_command();
    command.arg("--config").arg(path).arg("--data-dir").arg(home.data());
    run_to_exit(home, command).await
}

#[tokio::test]
async fn settings_that_cannot_be() {
    let home = Home::new();
    let wrong = [
        ("lisen = \"127.0.0.1:1\"", "unknown field `lisen`"),
        ("[storage]\nshard = 4", "unknown field `shard`"),
        ("[limits]\nmax_message_kib = 4", "unknown field `max_message_kib`"),
        ("[storage]\nengine = \"tape\"", "unknown variant `tape`"),
        ("listen = 8001", "listen"),
        ("node_id = ", "line 1"),
        ("node_id = 0", "setting node_id is 0; it must be 1 or more"),
        ("[storage]\nshards = 65", "setting storage.shards is 65; it must be 1 to 64"),
        (
            "[limits]\nmax_message_bytes = 9000000",
            "setting limits.max_message_bytes is 9000000; it must be 1 byte to 8 MiB",
        ),
        ("[limits]\nmax_batch_bytes = 1000", "setting limits.max_batch_bytes is 1000; it must be max_message_bytes to"),
        ("default_workspace = \"a b\"", "default_workspace"),
        ("[log]\nfilter = \"a=b=c\"", "setting log.filter is a=b=c; it must be a filter such as"),
    ];
    for (text, says) in wrong {
        let exit = start_with_file(&home, text).await;
        expect(&exit, 2, "INVALID_CONFIG", &[says]);
    }
    let mut command = broker_command();
    command.arg("--config").arg(home.path().join("absent.toml"));
    let exit = run_to_exit(&home, command).await;
    expect(&exit, 2, "INVALID_CONFIG", &["absent.toml", "No such file"]);
    assert!(!home.data().exists(), "wrong settings leave no data behind");
}

#[tokio::test]
async fn flags_and_variables_that_cannot_be() {
    let home = Home::new();
    let wrong: [(&[&str], &str); 5] = [
        (&["--listen", "8001"], "invalid value '8001' for '--listen <IP:PORT>'"),
        (&["--metrics-listen", "localhost"], "invalid value 'localhost' for '--metrics-listen <IP:PORT>'"),
        (&["--node-id", "one"], "invalid value 'one' for '--node-id <N>'"),
        (&["--shards", "4"], "unexpected argument '--shards'"),
        (&["data"], "unexpected argument 'data'"),
    ];
    for (arguments, says) in wrong {
        let mut command = broker_command();
        command.args(arguments);
        let exit = run_to_exit(&home, command).await;
        assert_eq!(exit.code, Some(2), "{exit:#?}");
        assert!(exit.stderr.contains(says) && exit.stderr.contains("--help"), "{exit:#?}");
    }
    let mut command = broker_command();
    command.env("TANDEM_NODE_ID", "0").args(["--data-dir", "data"]).current_dir(home.path());
    let exit = run_to_exit(&home, command).await;
    expect(&exit, 2, "INVALID_CONFIG", &["setting node_id is 0; it must be 1 or more"]);
}

#[tokio::test]
async fn settings_in_force_are_printed_as_a_file_that_can_be_read() {
    let home = Home::new();
    let file = home.path().join("settings.toml");
    fs::write(&file, "node_id = 3\n[storage]\nshards = 8\n[auth]\nopen = true\n").unwrap();
    let mut command = broker_command();
    command.env("TANDEM_LISTEN", "127.0.0.1:7001").arg("--config").arg(&file).args([
        "--node-id",
        "5",
        "--print-config",
    ]);
    let exit = run_to_exit(&home, command).await;
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    let config = printed(&exit, home.path());
    assert_eq!(
        (config.node_id, config.storage.shards, config.listen.port()),
        (5, 8, 7_001),
        "file, environment, flags"
    );
    assert_eq!(config.limits, Config::default().limits, "what is not set keeps its default");
}

fn printed(exit: &Exit, folder: &Path) -> Config {
    let copy = folder.join("printed.toml");
    fs::write(&copy, &exit.stdout).unwrap();
    Config::read(&copy).unwrap()
}
