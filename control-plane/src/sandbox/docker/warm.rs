//! Containers that wait for their assignment in no network, and become those of sandboxes.

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerUpdateBody, HostConfig, NetworkConnectRequest,
    NetworkDisconnectRequest,
};
use bollard::query_parameters::StartContainerOptions;

use super::{Docker, SPEC, container, name, network, of};
use crate::sandbox::{Container, RuntimeError};

/// What Docker calls no network; while a container is in it, it can be in no other.
const NOWHERE: &str = "none";

impl Docker {
    pub(super) async fn make_waiting(&self, wanted: &Container) -> Result<(), RuntimeError> {
        self.make_volume(wanted).await?;
        let mut body = container::body(wanted, &self.installation);
        body.networking_config = None;
        body.labels.get_or_insert_default().insert(SPEC.to_owned(), container::waiting_spec(wanted));
        body.host_config.get_or_insert_default().network_mode = Some(NOWHERE.to_owned());
        self.create_as(&wanted.id, body, &wanted.image).await?;
        let name = name(&wanted.id);
        self.api().await?.start_container(&name, None::<StartContainerOptions>).await.map_err(of)?;
        let request = NetworkDisconnectRequest { container: name, force: Some(true) };
        self.api().await?.disconnect_network(NOWHERE, request).await.map_err(of)
    }

    /// Makes a container that waits the one that is wanted; false: it does not wait, or cannot become it.
    pub(super) async fn dress(
        &self,
        known: &ContainerInspectResponse,
        wanted: &Container,
    ) -> Result<bool, RuntimeError> {
        if !waits_for(known, wanted) {
            return Ok(false);
        }
        let body = container::body(wanted, &self.installation).host_config.unwrap_or_default();
        let fits = known.host_config.as_ref().is_some_and(|host| limits(host) == limits(&body));
        let name = name(&wanted.id);
        if !fits {
            let HostConfig { memory, memory_swap, nano_cpus, pids_limit, .. } = body;
            let change =
                ContainerUpdateBody { memory, memory_swap, nano_cpus, pids_limit, ..ContainerUpdateBody::default() };
            self.api().await?.update_container(&name, change).await.map_err(of)?;
        }
        // After its limits: nothing of a user's runs in it yet, and nobody reaches it.
        let request = NetworkConnectRequest { container: name, endpoint_config: None };
        self.api().await?.connect_network(&network::name(&wanted.network), request).await.map_err(of)?;
        Ok(true)
    }
}

/// Whether a container has waited since it was made, and nobody has begun to use it.
fn waits_for(known: &ContainerInspectResponse, wanted: &Container) -> bool {
    let spec = known.config.as_ref().and_then(|config| config.labels.as_ref()?.get(SPEC));
    let runs = known.state.as_ref().is_some_and(|state| state.status == Some(ContainerStateStatusEnum::RUNNING));
    let networks = known.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let is_nowhere = networks.is_none_or(|networks| networks.is_empty());
    // Names that it can look up cannot be given to it later.
    runs && is_nowhere && wanted.hosts.is_empty() && spec == Some(&container::waiting_spec(wanted))
}

/// What can be changed while a container runs.
fn limits(host: &HostConfig) -> [Option<i64>; 4] {
    [host.memory, host.memory_swap, host.nano_cpus, host.pids_limit]
}
