//! What a sandbox cannot reach, take or learn, tried from inside.

use serde_json::json;
use tandem_client::{Client, Settings, Token};
use tokio::net::TcpListener;

use crate::{
    docker::{Dock, docker},
    stage::{refused, until},
};

/// Tries to connect, and says how that went.
const REACH: &str = r"
import socket, sys
for place in sys.argv[1:]:
    host, port = place.rsplit(':', 1)
    try:
        socket.create_connection((host, int(port)), 1.5).close()
        print(place, 'OPEN')
    except OSError as error:
        print(place, 'closed', error)
";

async fn reached(dock: &Dock, id: &str, places: &[String]) -> Vec<String> {
    let mut open = Vec::new();
    for some in places.chunks(4) {
        let mut command = vec!["python3".to_owned(), "-c".to_owned(), REACH.to_owned()];
        command.extend(some.iter().cloned());
        let answer =
            dock.post(id, "exec", &json!({"command": command, "timeout_seconds": 20}).to_string()).await.json();
        let said = answer["stdout"].as_str().unwrap().to_owned();
        assert_eq!(said.lines().count(), some.len(), "{answer}");
        open.extend(said.lines().filter(|line| line.ends_with("OPEN")).map(|line| line.replace(" OPEN", "")));
    }
    open
}

fn address(id: &str) -> String {
    docker(&[
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        &format!("tandem-{id}"),
    ])
}

fn gateway(id: &str) -> String {
    docker(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}", &format!("tandem-{id}")])
}

#[tokio::test]
async fn a_sandbox_reaches_the_broker_and_nobody_else() {
    let dock = Dock::start().await;
    let listens = json!({"command": ["python3", "-m", "http.server", "8080"]});
    let (one, two) = (dock.sandbox("one", json!({})).await, dock.sandbox("two", listens).await);
    // A service of the host, on every address; and what there is on this machine anyway.
    let service = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = service.local_addr().unwrap().port();
    let broker = dock.stage.broker.as_ref().unwrap().grpc_address();
    let gate = gateway(&one);
    let mut places = vec![
        format!("{gate}:{port}"),
        format!("{gate}:{}", broker.port()),
        format!("{gate}:22"),
        format!("{gate}:2375"),
        format!("{gate}:53"),
        format!("{}:8080", address(&two)),
        "172.17.0.1:22".to_owned(),
        format!("172.17.0.1:{port}"),
        "169.254.169.254:80".to_owned(),
        "169.254.170.2:80".to_owned(),
        "1.1.1.1:53".to_owned(),
        "8.8.8.8:443".to_owned(),
    ];
    for local in
        docker(&["network", "inspect", "--format", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", "bridge"]).lines()
    {
        places.push(format!("{local}:{port}"));
    }
    assert_eq!(reached(&dock, &one, &places).await, Vec::<String>::new());
    // So that the test can fail: the one way that there is is open, and the other sandbox does listen.
    assert_eq!(reached(&dock, &one, &[format!("{gate}:7700")]).await, [format!("{gate}:7700")]);
    let own = format!("{}:8080", address(&two));
    assert_eq!(reached(&dock, &two, std::slice::from_ref(&own)).await, [own]);
    let lookup =
        "import socket\ntry: print(socket.getaddrinfo('deb.debian.org', 80))\nexcept OSError as e: print('none', e)";
    let body = json!({"command": ["python3", "-c", lookup], "timeout_seconds": 20}).to_string();
    let answer = dock.post(&one, "exec", &body);
    assert!(answer.await.json()["stdout"].as_str().unwrap().starts_with("none"));
}

#[tokio::test]
async fn a_workspace_opens_what_it_names() {
    // On an address of the host that is no bridge's of ours.
    let service = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = service.local_addr().unwrap().port();
    let allowed = json!({"network": {"allowed_hosts": ["192.0.2.1:443"]}});
    let dock = Dock::with(allowed, |_| {}).await;
    let id = dock.sandbox("one", json!({})).await;
    let table = docker(&[
        "network",
        "ls",
        "--format",
        "{{.Name}}",
        "--filter",
        &format!("label=aintandem.workspace={}", dock.workspace),
    ]);
    let rules =
        std::process::Command::new("nft").args(["list", "table", "inet", &table.replace('-', "_")]).output().unwrap();
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    assert!(rules.contains("ip daddr 192.0.2.1 tcp dport 443 accept"), "{rules}");
    assert_eq!(
        reached(&dock, &id, &[format!("{}:{port}", gateway(&id)), "1.1.1.1:443".to_owned()]).await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_sandbox_has_no_rights_and_no_secrets_lie_about() {
    let dock = Dock::start().await;
    let id = dock.sandbox("one", json!({})).await;
    let (_, status) = dock.shell(&id, "cat /proc/self/status").await;
    for (line, wanted) in [
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Uid", "10001"),
    ] {
        let found = status.lines().find(|found| found.starts_with(&format!("{line}:"))).unwrap();
        assert!(found.contains(wanted), "{found}");
    }
    for forbidden in [
        "touch /usr/bin/x",
        "touch /etc/x",
        "mount -t tmpfs none /mnt",
        "chown 0 /work",
        "ls /var/run/docker.sock",
        "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
        "unshare -n true",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "dd if=/dev/sda of=/dev/null count=1",
        "nft list ruleset",
        "ip route add default via 10.0.0.1",
    ] {
        let (code, said) = dock.shell(&id, forbidden).await;
        assert_ne!(code, 0, "{forbidden}: {said}");
    }
    let (code, said) =
        dock.shell(&id, "echo fine > /work/x && cat /work/x && echo > /tmp/y && stat -c %a /run/tandem/token").await;
    assert_eq!((code, said.as_str()), (0, "fine\n600\n"));
    let (_, token) = dock.shell(&id, "cat /run/tandem/token").await;
    let inspected = docker(&["inspect", &format!("tandem-{id}")]);
    assert!(token.len() > 40 && !inspected.contains(token.trim()), "the token stands nowhere else");
    let (_, environment) = dock.shell(&id, "cat /proc/*/environ | tr '\\0' '\\n'").await;
    assert!(!environment.contains(token.trim()));

    // With it one is this sandbox, and no other, until it is stopped.
    let endpoint = format!("http://{}", dock.stage.broker.as_ref().unwrap().grpc_address());
    let settings = Settings { token: Some(Token::from_text(token.trim())), ..Settings::for_endpoint(endpoint) };
    let thief = Client::with_settings(settings).unwrap();
    let caller = thief.caller().await.unwrap();
    assert_eq!((caller.sandbox_id.as_str(), caller.workspace_id.as_str()), ("one", dock.workspace.as_str()));
    thief.registry(dock.workspace.as_str()).heartbeat("two").await.unwrap_err();
    thief.keys().create(tandem_client::NewKey::default()).await.unwrap_err();
    assert_eq!(dock.post(&id, "stop", "").await.status, 200);
    until("the token is over", async || thief.caller().await.is_err()).await;
}

#[tokio::test]
async fn hogs_stay_inside_their_limits() {
    let dock = Dock::start().await;
    let resources = json!({"memory_mb": 64, "cpu_cores": 0.5, "pids": 32, "disk_mb": 16, "tmp_mb": 4});
    let id = dock.sandbox("hog", json!({"resources": resources})).await;
    // Processes.
    let bomb = "import os,time\nn=0\ntry:\n  while n<500:\n    p=os.fork()\n    if p==0: time.sleep(8); os._exit(0)\n    n+=1\nexcept OSError as e: print(n, e)";
    let answer =
        dock.post(&id, "exec", &json!({"command": ["python3", "-c", bomb], "timeout_seconds": 20}).to_string()).await;
    let said = answer.json()["stdout"].as_str().unwrap().to_owned();
    let forked: u32 = said.split_whitespace().next().unwrap().parse().unwrap();
    assert!(forked < 32, "{said}");
    // They end by themselves; until then nothing else can be begun.
    let swift = json!({"command": ["sh", "-c", "python3 -c pass"], "timeout_seconds": 20}).to_string();
    until("there is room again", async || {
        let answer = dock.post(&id, "exec", &swift).await;
        if answer.status == 409 {
            refused(&answer, 409, "SANDBOX_FULL");
            return false;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["exit_code"] == 0
    })
    .await;
    // Memory, also as files.
    let (code, said) = dock.shell(&id, "python3 -c 'x = bytearray(500 << 20)'").await;
    assert_ne!(code, 0, "{said}");
    until("it is known", async || dock.status(&id).await["out_of_memory_kills"].as_u64() > Some(0)).await;
    let (code, said) = dock.shell(&id, "head -c 64M /dev/zero > /tmp/fill").await;
    assert!(code != 0 && said.contains("No space"), "{said}");
    dock.shell(&id, "rm -f /tmp/fill").await;
    // The disk: one file is no larger than the limit, and many are counted.
    let (code, _) = dock.shell(&id, "head -c 64M /dev/zero > /work/fill").await;
    assert_ne!(code, 0, "a file is no larger than the volume may be");
    dock.shell(&id, "rm -f /work/fill; for i in 1 2 3; do head -c 8M /dev/zero > /work/$i; done; sync").await;
    let status = dock.until_state(&id, "stopped").await;
    assert_eq!(status["stopped_because"], "disk_limit", "{status}");
    // Whoever watches the workspace has seen all of it.
    let what = format!("/api/v1/events?limit=1000&sandbox_id=hog&workspace_id={}", dock.workspace);
    for kind in ["sandbox_process_limit", "sandbox_out_of_memory", "sandbox_disk_limit"] {
        until(&format!("{kind} is told"), async || {
            let told = dock.stage.ask("GET", &what, "").await.json();
            told["events"].as_array().unwrap().iter().any(|event| event["type"] == kind && event["text"] != "")
        })
        .await;
    }
}
