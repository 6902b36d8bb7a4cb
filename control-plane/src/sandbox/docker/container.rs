//! A container as Docker is asked for it.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType, NetworkingConfig,
    ResourcesUlimits,
};
use sha2::{Digest as _, Sha256};

use super::{ID, INSTALLATION, SPEC, WORKSPACE, network};
use crate::{hex, sandbox::Container};

/// The process that takes the assignment; an image has it, or is none for sandboxes.
const AGENT: &str = "/usr/local/bin/tandem-agent";
/// Who runs in a sandbox.
const USER: &str = "10001:10001";
/// Where the volume is.
const WORK: &str = "/work";
/// What stays of the output, and in how many files.
const LOG_SIZE: &str = "5m";
const LOG_FILES: &str = "2";
const SHARED_MEMORY_BYTES: i64 = 16 << 20;
const OPEN_FILES: i64 = 4_096;

/// What tells whether a container is the one that is wanted.
pub(super) fn spec(container: &Container) -> String {
    // Of the form, too: a later version that makes them otherwise makes them anew.
    hex::of(&Sha256::digest(format!("3{container:?}"))[..16])
}

/// The same for one that waits, for whoever it fits: of what cannot be changed while it runs.
pub(super) fn waiting_spec(container: &Container) -> String {
    let fixed = (&container.id, &container.image, container.disk_bytes, container.tmp_bytes);
    hex::of(&Sha256::digest(format!("waiting 1{fixed:?}"))[..16])
}

/// The volume of a sandbox.
pub(super) fn volume(id: &str) -> String {
    format!("tandem-{id}")
}

/// Hardened: no capability, no new privileges, Docker's filter of system calls, nothing writable but memory of a size and one
/// volume, no swap, no device, nothing of the host.
pub(super) fn body(container: &Container, installation: &str) -> ContainerCreateBody {
    let labels = [
        (INSTALLATION, installation.to_owned()),
        (ID, container.id.clone()),
        (WORKSPACE, container.workspace.clone()),
        (SPEC, spec(container)),
    ];
    let network = network::name(&container.network);
    let endpoints = HashMap::from([(network.clone(), EndpointSettings::default())]);
    ContainerCreateBody {
        // Not its name: one that waits has none yet, and is to look the same.
        hostname: Some(container.id.clone()),
        image: Some(container.image.clone()),
        user: Some(USER.to_owned()),
        entrypoint: Some(vec![AGENT.to_owned()]),
        cmd: Some(Vec::new()),
        working_dir: Some(WORK.to_owned()),
        // The assignment comes this way; who attaches later must not end it.
        open_stdin: Some(true),
        stdin_once: Some(false),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        host_config: Some(host_config(container, network)),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(endpoints) }),
        ..ContainerCreateBody::default()
    }
}

fn host_config(container: &Container, network: String) -> HostConfig {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let memory = Some(signed(container.memory_bytes));
    let tmpfs = [
        ("/tmp", format!("rw,nosuid,nodev,size={},mode=1777", container.tmp_bytes)),
        // For the token and other secrets: in memory, of this user alone.
        ("/run/tandem", "rw,nosuid,nodev,noexec,size=1m,mode=0700,uid=10001,gid=10001".to_owned()),
    ];
    let volume = Mount {
        target: Some(WORK.to_owned()),
        source: Some(volume(&container.id)),
        typ: Some(MountType::VOLUME),
        ..Mount::default()
    };
    let limit =
        |name: &str, most: i64| ResourcesUlimits { name: Some(name.to_owned()), soft: Some(most), hard: Some(most) };
    let log = [("max-size", LOG_SIZE), ("max-file", LOG_FILES)];
    HostConfig {
        memory,
        // The same: no swap.
        memory_swap: memory,
        #[expect(clippy::cast_possible_truncation, reason = "checked to be a few processors")]
        nano_cpus: Some((container.cpus * 1e9) as i64),
        pids_limit: Some(i64::from(container.pids)),
        ulimits: Some(vec![
            limit("nofile", OPEN_FILES),
            limit("core", 0),
            limit("fsize", signed(container.disk_bytes)),
        ]),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        privileged: Some(false),
        readonly_rootfs: Some(true),
        tmpfs: Some(tmpfs.into_iter().map(|(path, options)| (path.to_owned(), options)).collect()),
        mounts: Some(vec![volume]),
        ipc_mode: Some("private".to_owned()),
        shm_size: Some(SHARED_MEMORY_BYTES),
        network_mode: Some(network),
        // Itself, where nobody answers: names of the world are not looked up, and nothing leaves by the way of such questions.
        dns: Some(vec!["127.0.0.1".to_owned()]),
        extra_hosts: Some(container.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        // Reaps what the sandbox leaves behind.
        init: Some(true),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        }),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_nothing_that_it_was_not_given() {
        let container = Container {
            id: "sb-1".to_owned(),
            workspace: "w".to_owned(),
            name: "one".to_owned(),
            image: "aintandem/sandbox".to_owned(),
            network: "abc".to_owned(),
            memory_bytes: 64 << 20,
            cpus: 0.5,
            pids: 64,
            disk_bytes: 1 << 20,
            tmp_bytes: 1 << 20,
            hosts: Vec::new(),
        };
        let body = body(&container, "i");
        assert!(body.env.is_none(), "whoever may inspect it sees its environment");
        let host = body.host_config.unwrap();
        assert_eq!((host.cap_drop, host.cap_add), (Some(vec!["ALL".to_owned()]), None));
        assert_eq!(
            (host.memory, host.memory_swap, host.nano_cpus),
            (Some(64 << 20), Some(64 << 20), Some(500_000_000))
        );
        assert!(host.binds.is_none() && host.devices.is_none() && host.privileged == Some(false));
        assert!(host.mounts.unwrap().iter().all(|mount| mount.typ == Some(MountType::VOLUME)));
        assert_ne!(spec(&container), spec(&Container { pids: 65, ..container.clone() }));
    }
}
