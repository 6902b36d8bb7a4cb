//! Containers that wait for their assignment in a network of which nothing can be reached, and become those of sandboxes.
//!
//! They wait in a network, and not in none, because Docker takes most of the time for a container's first one: it starts what answers
//! its questions for names. They leave it beside their start, which would have to wait for that, too.

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerUpdateBody, HostConfig,
    NetworkConnectRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::StartContainerOptions;

use super::{Docker, ROOM, SPEC, container, is_status, name, network, of};
use crate::sandbox::{Container, RuntimeError};

impl Docker {
    pub(super) async fn make_waiting(&self, wanted: &Container) -> Result<(), RuntimeError> {
        self.make_volume(wanted).await?;
        let mut body = container::body(wanted, &self.installation);
        let labels = body.labels.get_or_insert_default();
        labels.insert(SPEC.to_owned(), container::waiting_spec(wanted));
        labels.insert(ROOM.to_owned(), network::name(&wanted.network));
        self.create_as(&wanted.id, body, &wanted.image).await?;
        self.api().await?.start_container(&name(&wanted.id), None::<StartContainerOptions>).await.map_err(of)
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
        let Some(room) = room(known).map(str::to_owned) else { return Ok(false) };
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
        self.rooms.lock().insert(wanted.id.clone(), room);
        Ok(true)
    }

    /// One that has waited leaves the network where it did, now that it has another.
    pub(super) fn leave_room(&self, id: &str) {
        let Some(room) = self.rooms.lock().remove(id) else { return };
        let (this, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            if let Err(error) = this.leave(&id, &room).await {
                tracing::debug!(sandbox = id, %error, "it leaves the network where it waited later");
            }
        });
    }

    /// The same for one whose control plane or daemon was killed meanwhile.
    pub(super) async fn leave_late(&self, id: &str, summary: &ContainerSummary) {
        let Some(room) = summary.labels.as_ref().and_then(|labels| labels.get(ROOM)) else { return };
        let networks = summary.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let is_late = networks.is_some_and(|networks| networks.len() > 1 && networks.contains_key(room));
        // Whoever starts it at this moment does it when that is done.
        if is_late
            && !self.rooms.lock().contains_key(id)
            && let Err(error) = self.leave(id, room).await
        {
            tracing::debug!(sandbox = id, %error, "it leaves the network where it waited later");
        }
    }

    async fn leave(&self, id: &str, room: &str) -> Result<(), RuntimeError> {
        let request = NetworkDisconnectRequest { container: name(id), force: Some(true) };
        match self.api().await?.disconnect_network(room, request).await {
            Ok(()) => Ok(()),
            // It is gone, or has left.
            Err(error) if is_status(&error, 404) => Ok(()),
            Err(error) => Err(of(error)),
        }
    }
}

/// The network where one waits; None: it does not.
fn room(known: &ContainerInspectResponse) -> Option<&str> {
    known.config.as_ref()?.labels.as_ref()?.get(ROOM).map(String::as_str)
}

/// Whether a container has waited since it was made, and nobody has begun to use it.
fn waits_for(known: &ContainerInspectResponse, wanted: &Container) -> bool {
    let spec = known.config.as_ref().and_then(|config| config.labels.as_ref()?.get(SPEC));
    let runs = known.state.as_ref().is_some_and(|state| state.status == Some(ContainerStateStatusEnum::RUNNING));
    let networks = known.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let is_in_room = networks
        .is_some_and(|networks| networks.len() == 1 && room(known).is_some_and(|room| networks.contains_key(room)));
    // Names that it can look up cannot be given to it later.
    runs && is_in_room && wanted.hosts.is_empty() && spec == Some(&container::waiting_spec(wanted))
}

/// What can be changed while a container runs.
fn limits(host: &HostConfig) -> [Option<i64>; 4] {
    [host.memory, host.memory_swap, host.nano_cpus, host.pids_limit]
}
