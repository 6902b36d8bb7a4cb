//! The network of a workspace, and its walls: rules of the host's own filter, which no container can touch.
//!
//! The walls are a table of their own that others' rules cannot open: what is dropped in any table is dropped. They stand before the
//! network does, and are replaced as a whole. They are put up by a container with the host's network and the one capability that
//! this takes, so that the control plane itself needs no rights but Docker's.

use std::{collections::HashMap, fmt::Write as _};

use bollard::{
    container::{AttachContainerResults, LogOutput},
    models::{ContainerCreateBody, HostConfig, Ipam, IpamConfig, NetworkCreateRequest},
    query_parameters::{
        AttachContainerOptionsBuilder, InspectNetworkOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
        WaitContainerOptions,
    },
};
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::{Docker, INSTALLATION, WORKSPACE, is_status, of};
use crate::sandbox::{Network, RuntimeError};

/// As Docker knows the network.
pub(super) fn name(key: &str) -> String {
    format!("tandem-{key}")
}

/// As the host knows its side of it; 15 characters at most.
fn bridge(key: &str) -> String {
    format!("tdm-{key}")
}

fn table(key: &str) -> String {
    format!("tandem_{key}")
}

/// The rules of a network, in the language of `nft`; applied as one.
pub(super) fn walls(network: &Network) -> String {
    let (table, bridge, gateway) = (table(&network.key), bridge(&network.key), network.gateway());
    let mut allowed = String::new();
    let host = network.host_port.map_or_else(String::new, |port| {
        format!("    iifname \"{bridge}\" ip daddr {gateway} tcp dport {port} accept\n")
    });
    for (address, port) in &network.allowed {
        // Writing to a text cannot fail.
        writeln!(allowed, "    iifname \"{bridge}\" ip daddr {address} tcp dport {port} accept").unwrap_or_default();
    }
    let (mut meter, mut pace) = (String::new(), String::new());
    if let Some(kib) = network.send_kib_per_second {
        meter = "  set senders { type ipv4_addr; flags dynamic; timeout 1m; size 1024; }\n".to_owned();
        pace = format!(
            "    iifname \"{bridge}\" add @senders {{ ip saddr limit rate over {kib} kbytes/second burst {kib} kbytes }} drop\n"
        );
    }
    format!(
        "table inet {table} {{}}\n\
         delete table inet {table}\n\
         table inet {table} {{\n\
         {meter}\
         \x20 chain to_host {{\n\
         \x20   type filter hook input priority -10; policy accept;\n\
         {pace}\
         {host}\
         \x20   iifname \"{bridge}\" drop\n\
         \x20 }}\n\
         \x20 chain beyond {{\n\
         \x20   type filter hook forward priority -10; policy accept;\n\
         \x20   iifname \"{bridge}\" oifname \"{bridge}\" drop\n\
         {pace}\
         {allowed}\
         \x20   iifname \"{bridge}\" drop\n\
         \x20   oifname \"{bridge}\" ct state established,related accept\n\
         \x20   oifname \"{bridge}\" drop\n\
         \x20 }}\n\
         }}\n"
    )
}

impl Docker {
    pub(super) async fn put_up(&self, network: &Network) -> Result<(), RuntimeError> {
        self.filter(&walls(network)).await?;
        let internal = network.allowed.is_empty();
        let known = self.api().await?.inspect_network(&name(&network.key), None::<InspectNetworkOptions>).await;
        match known {
            Ok(known) if known.internal == Some(internal) => return Ok(()),
            Ok(_) => {
                // Whether there is a way out cannot be changed while containers are in it.
                if let Err(error) = self.api().await?.remove_network(&name(&network.key)).await {
                    tracing::warn!(workspace = network.workspace, %error, "the network changes when its sandboxes are stopped");
                    return Ok(());
                }
            }
            Err(error) if is_status(&error, 404) => {}
            Err(error) => return Err(of(error)),
        }
        match self.api().await?.create_network(self.request(network, internal)).await {
            Ok(_) => Ok(()),
            // Somebody else was quicker.
            Err(error) if is_status(&error, 409) => Ok(()),
            Err(error) => Err(of(error)),
        }
    }

    fn request(&self, network: &Network, internal: bool) -> NetworkCreateRequest {
        let [a, b, c] = network.subnet;
        let options = [
            ("com.docker.network.bridge.name", bridge(&network.key)),
            // Beside our own rule: sandboxes do not hear each other.
            ("com.docker.network.bridge.enable_icc", "false".to_owned()),
        ];
        let labels = [(INSTALLATION, self.installation.clone()), (WORKSPACE, network.workspace.clone())];
        let owned = |pairs: [(&str, String); 2]| {
            pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<HashMap<_, _>>()
        };
        NetworkCreateRequest {
            name: name(&network.key),
            driver: Some("bridge".to_owned()),
            internal: Some(internal),
            enable_ipv6: Some(false),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(format!("{a}.{b}.{c}.0/24")),
                    gateway: Some(network.gateway().to_string()),
                    ..IpamConfig::default()
                }]),
                ..Ipam::default()
            }),
            options: Some(owned(options)),
            labels: Some(owned(labels)),
            ..NetworkCreateRequest::default()
        }
    }

    pub(super) async fn take_down(&self, network: &Network) -> Result<(), RuntimeError> {
        match self.api().await?.remove_network(&name(&network.key)).await {
            Ok(()) => {}
            Err(error) if is_status(&error, 404) => {}
            Err(error) => return Err(of(error)),
        }
        let table = table(&network.key);
        self.filter(&format!("table inet {table} {{}}\ndelete table inet {table}\n")).await
    }

    /// Runs rules of the host's filter, all or none.
    async fn filter(&self, rules: &str) -> Result<(), RuntimeError> {
        let body = ContainerCreateBody {
            image: Some(self.image.clone()),
            user: Some("0:0".to_owned()),
            entrypoint: Some(vec!["nft".to_owned(), "-f".to_owned(), "-".to_owned()]),
            cmd: Some(Vec::new()),
            working_dir: Some("/".to_owned()),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            labels: Some(HashMap::from([(INSTALLATION.to_owned(), self.installation.clone())])),
            host_config: Some(HostConfig {
                network_mode: Some("host".to_owned()),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(vec!["NET_ADMIN".to_owned()]),
                security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
                readonly_rootfs: Some(true),
                pids_limit: Some(16),
                memory: Some(64 << 20),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let made =
            self.api().await?.create_container(None, body).await.map_err(|error| self.of_create(error, &self.image))?;
        let done = self.run_filter(&made.id, rules).await;
        let force = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        if let Err(error) = self.api().await?.remove_container(&made.id, Some(force)).await {
            tracing::warn!(%error, "the container that puts up walls is left behind");
        }
        done
    }

    async fn run_filter(&self, id: &str, rules: &str) -> Result<(), RuntimeError> {
        let attach =
            AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true).build();
        let AttachContainerResults { mut output, mut input } =
            self.api().await?.attach_container(id, Some(attach)).await.map_err(of)?;
        self.api().await?.start_container(id, None::<StartContainerOptions>).await.map_err(of)?;
        let lost = |error: std::io::Error| RuntimeError::Unavailable(format!("the walls are not put up: {error}"));
        input.write_all(rules.as_bytes()).await.map_err(lost)?;
        input.shutdown().await.map_err(lost)?;
        let mut said = Vec::new();
        while let Some(part) = output.next().await {
            if let Ok(LogOutput::StdErr { message } | LogOutput::StdOut { message }) = part
                && said.len() < 4_096
            {
                said.extend_from_slice(&message);
            }
        }
        let ended = self.api().await?.wait_container(id, None::<WaitContainerOptions>).next().await;
        match ended {
            Some(Ok(ended)) if ended.status_code == 0 => Ok(()),
            _ => {
                let said = String::from_utf8_lossy(&said);
                Err(RuntimeError::Refused(format!("the walls of a network cannot be put up: {}", said.trim())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walls_let_through_what_is_named_and_nothing_else() {
        let network = Network {
            workspace: "w".to_owned(),
            key: "0a1b".to_owned(),
            subnet: [10, 213, 7],
            host_port: Some(7700),
            allowed: vec![("192.0.2.7".parse().unwrap(), 443)],
            send_kib_per_second: Some(512),
        };
        let walls = walls(&network);
        let accepts: Vec<_> =
            walls.lines().filter(|line| line.contains("accept") && !line.contains("policy")).collect();
        assert_eq!(accepts.len(), 3, "{walls}");
        assert!(accepts[0].contains("ip daddr 10.213.7.1 tcp dport 7700 accept"));
        assert!(accepts[1].contains("ip daddr 192.0.2.7 tcp dport 443 accept"));
        assert!(accepts[2].contains("established"));
        assert_eq!(walls.matches("limit rate over 512 kbytes/second").count(), 2);
        // What goes from one container to another is dropped before anything is let through.
        let beyond = walls.split("chain beyond").nth(1).unwrap();
        assert!(beyond.find("oifname \"tdm-0a1b\" drop").unwrap() < beyond.find(" accept\n").unwrap_or(usize::MAX));
        assert!(bridge("0123456789a").len() <= 15);
        let closed = Network { host_port: None, allowed: Vec::new(), ..network };
        let closed = super::walls(&closed);
        let accepts = closed.lines().filter(|line| line.contains("accept") && !line.contains("policy"));
        assert_eq!(accepts.count(), 1, "nothing but what answers: {closed}");
    }
}
