//! The networks of workspaces: which addresses they have, who can be reached from them, and that their walls stand.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc, time::Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::{
    clock,
    config::SandboxConfig,
    error::{Failure, Reason},
    hex, random,
    relay::Relays,
    sandbox::{Network, RuntimeError, SandboxRuntime},
    store::{Resource, Store, StoreError},
};

/// As the database calls them: a network is known by its workspace and named by its subnet.
pub(crate) const KIND: &str = "network";
/// In place of a workspace, none of which is called so.
const WAITING_ROOM: &str = "waiting room";
/// Addresses of one host that are remembered.
const MAX_ADDRESSES: usize = 64;
/// Hosts that a workspace may name.
const MAX_HOSTS: usize = 64;
/// How long putting up a network may take.
const BUILDING: std::time::Duration = std::time::Duration::from_secs(40);
/// Walls are put up again after so long, whether they stand or not: the rules of a host are also others'.
const WALLS_HOLD: std::time::Duration = std::time::Duration::from_secs(300);

/// Whom the sandboxes of a workspace reach beside the broker, and how fast.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NetworkSettings {
    /// Such as `api.openai.com:443`; looked up when a sandbox starts. Nothing else can be reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub(crate) allowed_hosts: Vec<String>,
    /// What one sandbox may send in a second, in KiB. Unset: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub(crate) send_kib_per_second: Option<u32>,
}

impl NetworkSettings {
    /// Whether they can be.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let field = "settings.network.allowed_hosts";
        if self.allowed_hosts.len() > MAX_HOSTS {
            return Err(Failure::field(field, format!("{} hosts; at most {MAX_HOSTS}", self.allowed_hosts.len())));
        }
        for host in &self.allowed_hosts {
            let (name, _) = split(host).ok_or_else(|| {
                Failure::field(field, format!("{host:?} is no host with a port, such as api.openai.com:443"))
            })?;
            // What a name stands for is seen when a sandbox starts.
            if name.parse::<Ipv4Addr>().is_ok_and(|address| !may_be_reached(address)) {
                let text =
                    format!("{host:?} is an address that sandboxes may not reach: loopback, link-local or 0.0.0.0");
                return Err(Failure::field(field, text));
            }
        }
        match self.send_kib_per_second {
            Some(0) | Some(10_000_001..) => {
                Err(Failure::field("settings.network.send_kib_per_second", "it is not 1 to 10,000,000"))
            }
            _ => Ok(()),
        }
    }
}

fn split(host: &str) -> Option<(&str, u16)> {
    let (name, port) = host.rsplit_once(':')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    ((1..=253).contains(&name.len()) && name.bytes().all(plain)).then_some((name, port))
}

/// What a network leads to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Way {
    pub(crate) network: Network,
    /// The broker, seen from inside.
    pub(crate) broker: Vec<String>,
    /// Names that can be looked up.
    pub(crate) hosts: Vec<(String, Ipv4Addr)>,
}

/// See above. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Networks(Arc<Inside>);

struct Inside {
    store: Store,
    runtime: Arc<dyn SandboxRuntime>,
    relays: Relays,
    config: SandboxConfig,
    installation: String,
    /// What other control planes know this one by.
    holder: String,
    /// Networks whose walls stand, by workspace, and since when.
    standing: Mutex<HashMap<String, (Network, Instant)>>,
    /// What hosts were found at, by workspace and as they are allowed.
    seen: Mutex<HashMap<(String, String), Vec<Ipv4Addr>>>,
    /// One at a time puts up walls.
    building: tokio::sync::Mutex<()>,
}

impl Networks {
    pub(crate) fn new(
        (store, runtime): (Store, Arc<dyn SandboxRuntime>),
        relays: Relays,
        config: SandboxConfig,
        installation: String,
    ) -> Self {
        let (standing, building, seen) = (Mutex::default(), tokio::sync::Mutex::default(), Mutex::default());
        let holder = random::id("cp");
        Self(Arc::new(Inside { store, runtime, relays, config, installation, holder, standing, seen, building }))
    }

    /// The network of a workspace, with walls that stand and a way to the broker.
    pub(crate) async fn ensure(&self, workspace: &str, settings: &NetworkSettings) -> Result<Way, Failure> {
        let (mut allowed, mut hosts) = (Vec::new(), Vec::new());
        let reached = self.reached(settings);
        self.0.seen.lock().retain(|(other, host), _| other != workspace || reached.contains(host));
        for host in reached {
            let Some((name, port)) = split(&host) else { continue };
            let found = look_up(name, port).await;
            let known = self.known(workspace, &host, found.as_deref().unwrap_or_default());
            // Sandboxes that run keep the addresses that they were given; a name that is not found for a while stays what it was.
            let found = match found {
                Err(why) if known.is_empty() => return Err(why),
                Err(_) => known.clone(),
                Ok(found) => found,
            };
            allowed.extend(known.into_iter().map(|address| (address, port)));
            if name.parse::<Ipv4Addr>().is_err() {
                hosts.extend(found.into_iter().map(|address| (name.to_owned(), address)));
            }
        }
        allowed.sort_unstable();
        allowed.dedup();
        let network = Network {
            workspace: workspace.to_owned(),
            key: self.key(workspace),
            subnet: self.subnet(workspace).await?,
            host_port: Some(self.0.config.relay_port),
            allowed,
            send_kib_per_second: settings.send_kib_per_second,
        };
        let network = self.build_somewhere(network).await?;
        let gateway = network.gateway();
        let urls = &self.0.config.broker_urls;
        let broker = if urls.is_empty() {
            let port = self.0.config.relay_port;
            self.0.relays.listen(gateway, port).await.map_err(|error| {
                let text = format!("no relay can listen on {gateway}:{port} ({error}); set sandboxes.broker_urls");
                Failure::new(Reason::DockerUnavailable, text)
            })?;
            vec![crate::relay::url(gateway, port)]
        } else {
            urls.clone()
        };
        Ok(Way { network, broker, hosts })
    }

    /// The network in which containers wait for sandboxes: with walls that let nothing through.
    pub(crate) async fn waiting_room(&self) -> Result<Network, Failure> {
        let network = Network {
            workspace: WAITING_ROOM.to_owned(),
            key: self.key(WAITING_ROOM),
            subnet: self.subnet(WAITING_ROOM).await?,
            host_port: None,
            allowed: Vec::new(),
            send_kib_per_second: None,
        };
        self.build_somewhere(network).await
    }

    /// Takes it down, where it stands: nobody waits any more.
    pub(crate) async fn close_waiting_room(&self) -> Result<(), Failure> {
        self.remove(WAITING_ROOM).await
    }

    async fn build_somewhere(&self, mut network: Network) -> Result<Network, Failure> {
        while let Err(error) = self.build(&network).await {
            // Something else on this host has them; there are others.
            let RuntimeError::AddressesTaken(_) = error else { return Err(error.into()) };
            let Network { workspace, subnet, .. } = &network;
            tracing::warn!(workspace, ?subnet, %error, "the network gets other addresses");
            self.give_up(workspace, *subnet).await?;
            network.subnet = self.subnet(workspace).await?;
        }
        Ok(network)
    }

    /// The broker, where it has addresses of its own, and what is allowed; each with its port.
    fn reached(&self, settings: &NetworkSettings) -> Vec<String> {
        let of_broker = self.0.config.broker_urls.iter().filter_map(|url| {
            let uri: hyper::Uri = url.parse().ok()?;
            Some(format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or(443)))
        });
        of_broker.chain(settings.allowed_hosts.iter().cloned()).collect()
    }

    /// All addresses that a host of a workspace had, with those that it has now: the newest ones, where they are many.
    fn known(&self, workspace: &str, host: &str, found: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let mut seen = self.0.seen.lock();
        let known = seen.entry((workspace.to_owned(), host.to_owned())).or_default();
        for address in found {
            known.retain(|other| other != address);
            known.push(*address);
        }
        known.drain(..known.len().saturating_sub(MAX_ADDRESSES));
        known.clone()
    }

    /// Whether sandboxes have names of hosts to look up.
    pub(crate) fn has_names(&self, settings: &NetworkSettings) -> bool {
        let reached = self.reached(settings);
        let mut names = reached.iter().filter_map(|host| split(host).map(|(name, _)| name));
        names.any(|name| name.parse::<Ipv4Addr>().is_err())
    }

    async fn build(&self, network: &Network) -> Result<(), RuntimeError> {
        let stands = || {
            let standing = self.0.standing.lock();
            let known = standing.get(&network.workspace);
            known.is_some_and(|(known, since)| {
                known == network && clock::now().saturating_duration_since(*since) < WALLS_HOLD
            })
        };
        if stands() {
            return Ok(());
        }
        let _turn = self.0.building.lock().await;
        if stands() {
            return Ok(());
        }
        self.alone(network).await?;
        let mut standing = self.0.standing.lock();
        standing.insert(network.workspace.clone(), (network.clone(), clock::now()));
        Ok(())
    }

    /// Puts up a network while no other control plane does: of two that Docker makes at once the second takes the bridge of the
    /// first with it when it fails.
    async fn alone(&self, network: &Network) -> Result<(), RuntimeError> {
        let lease = format!("network {}", network.workspace);
        let busy = |error: StoreError| RuntimeError::Unavailable(error.to_string());
        let until = clock::now() + BUILDING;
        loop {
            let now_ms = clock::unix_ms();
            let turn = (now_ms, now_ms.saturating_add(i64::try_from(BUILDING.as_millis()).unwrap_or(i64::MAX)));
            if self.0.store.lease((&lease, &self.0.holder), turn).await.map_err(busy)? {
                break;
            }
            if clock::now() > until {
                return Err(RuntimeError::Unavailable("another control plane puts up the same network".to_owned()));
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let done = self.0.runtime.wall_in(network).await;
        if let Err(error) = self.0.store.give_back((&lease, &self.0.holder)).await {
            tracing::warn!(%error, "others wait a while to put up a network");
        }
        done
    }

    /// Says that a subnet is no network's of ours, and none to be.
    async fn give_up(&self, workspace: &str, subnet: [u8; 3]) -> Result<(), Failure> {
        let Some(row) = self.0.store.get(KIND, workspace).await? else { return Ok(()) };
        if parse(&row.name)? != subnet {
            return Ok(());
        }
        match self.0.store.remove(&row).await {
            Ok(()) => {}
            Err(StoreError::Changed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let taken = Resource { id: format!("taken {}", row.name), state: "taken".to_owned(), revision: 1, ..row };
        match self.0.store.insert(&taken).await {
            Ok(()) | Err(StoreError::NameTaken | StoreError::IdTaken) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets that walls stand: they are put up again before anything starts.
    pub(crate) fn doubt(&self) {
        self.0.standing.lock().clear();
    }

    /// Takes the network of a workspace down that has no sandboxes any more.
    pub(crate) async fn remove(&self, workspace: &str) -> Result<(), Failure> {
        let Some(row) = self.0.store.get(KIND, workspace).await? else { return Ok(()) };
        let subnet = parse(&row.name)?;
        let network = Network {
            workspace: workspace.to_owned(),
            key: self.key(workspace),
            subnet,
            host_port: None,
            allowed: Vec::new(),
            send_kib_per_second: None,
        };
        let _turn = self.0.building.lock().await;
        self.0.standing.lock().remove(workspace);
        self.0.seen.lock().retain(|(other, _), _| other != workspace);
        self.0.relays.close(network.gateway());
        self.0.runtime.tear_down(&network).await?;
        match self.0.store.remove(&row).await {
            Ok(()) | Err(StoreError::Changed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// No other workspace of any installation on this host has the same, but for a chance of one in four thousand million.
    fn key(&self, workspace: &str) -> String {
        hex::of(&Sha256::digest(format!("{}\0{workspace}", self.0.installation))[..4])
    }

    /// The addresses of a workspace: always the same, and no other's.
    async fn subnet(&self, workspace: &str) -> Result<[u8; 3], Failure> {
        let [a, b] = self.0.config.pool().unwrap_or([10, 213]);
        // Where it begins to look: most find theirs at once.
        let first = Sha256::digest(workspace)[0];
        for step in 0..=255_u8 {
            if let Some(row) = self.0.store.get(KIND, workspace).await? {
                return parse(&row.name);
            }
            let [a, b, c] = [a, b, first.wrapping_add(step)];
            let now_ms = clock::unix_ms();
            let row = Resource {
                kind: KIND.to_owned(),
                id: workspace.to_owned(),
                scope: String::new(),
                name: format!("{a}.{b}.{c}"),
                state: "active".to_owned(),
                revision: 1,
                document: "{}".to_owned(),
                create_ms: now_ms,
                update_ms: now_ms,
                due_ms: 0,
            };
            match self.0.store.insert(&row).await {
                Ok(()) => return Ok([a, b, c]),
                Err(StoreError::NameTaken | StoreError::IdTaken) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let text =
            format!("all 256 networks of {a}.{b}.0.0/16 are taken; delete a workspace, or set sandboxes.subnets");
        Err(Failure::new(Reason::TooManySandboxes, text))
    }
}

fn parse(subnet: &str) -> Result<[u8; 3], Failure> {
    let parts: Vec<u8> = subnet.split('.').filter_map(|part| part.parse().ok()).collect();
    parts.try_into().map_err(|_| Failure::internal(format!("{subnet:?} is no subnet")))
}

/// Those that reach into this machine, or tell a cloud's secrets, are nobody's to name.
fn may_be_reached(address: Ipv4Addr) -> bool {
    !address.is_loopback() && !address.is_link_local() && !address.is_unspecified()
}

/// The addresses of a host.
async fn look_up(name: &str, port: u16) -> Result<Vec<Ipv4Addr>, Failure> {
    let found = tokio::net::lookup_host((name, port)).await.map_err(|error| {
        let text = format!("the host {name:?} cannot be looked up ({error}); mend settings.network.allowed_hosts");
        Failure::new(Reason::UnknownHost, text)
    })?;
    let addresses: Vec<_> = found
        .filter_map(|address| match address.ip() {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        })
        .filter(|address| may_be_reached(*address))
        .collect();
    if addresses.is_empty() {
        let text = format!(
            "the host {name:?} has no IPv4 address that sandboxes may reach; mend settings.network.allowed_hosts"
        );
        return Err(Failure::new(Reason::UnknownHost, text));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::fake::Fake;

    fn allowing(hosts: &[&str]) -> NetworkSettings {
        NetworkSettings { allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(), ..Default::default() }
    }

    #[test]
    fn hosts_have_ports() {
        allowing(&["api.openai.com:443", "10.0.0.7:5432"]).check().unwrap();
        for host in ["api.openai.com", "a b:1", ":1", "h:0", "h:70000", "http://h:1", "\"; drop:1"] {
            assert!(allowing(&[host]).check().is_err(), "{host}");
        }
        for host in ["169.254.169.254:80", "127.0.0.1:22", "127.9.9.9:22", "0.0.0.0:1"] {
            let error = allowing(&["192.0.2.1:1", host]).check().unwrap_err().to_string();
            assert!(error.starts_with("settings.network.allowed_hosts: ") && error.contains(host), "{error}");
        }
    }

    #[tokio::test]
    async fn networks_are_apart_and_stay_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite:{}/db", dir.path().display()), 2).await.unwrap();
        let fake = Fake::default();
        let runtime: Arc<dyn SandboxRuntime> = Arc::new(fake.clone());
        let config =
            SandboxConfig { broker_urls: vec!["http://192.0.2.1:8001".to_owned()], ..SandboxConfig::default() };
        let relays = Relays::new(&[], None).unwrap();
        let networks = Networks::new((store, runtime), relays, config, "i".to_owned());
        let mut subnets = std::collections::HashSet::new();
        for number in 0..40 {
            let way = networks.ensure(&format!("w{number}"), &NetworkSettings::default()).await.unwrap();
            assert!(subnets.insert(way.network.subnet));
            assert_eq!(way.network.allowed, [("192.0.2.1".parse().unwrap(), 8001)]);
            assert_eq!(way.broker, ["http://192.0.2.1:8001"]);
        }
        fake.asked();
        let again = networks.ensure("w7", &NetworkSettings::default()).await.unwrap();
        assert!(fake.asked().is_empty(), "its walls stand");
        let more = networks.ensure("w7", &allowing(&["192.0.2.9:443"])).await.unwrap();
        assert_eq!((more.network.subnet, more.network.allowed.len()), (again.network.subnet, 2));
        assert_eq!(fake.asked(), ["wall in w7"]);
        let inside = networks.ensure("w7", &allowing(&["127.0.0.1:22"])).await.unwrap_err();
        assert_eq!(inside.code(), "UNKNOWN_HOST");
        let metadata = networks.ensure("w7", &allowing(&["169.254.169.254:80"])).await.unwrap_err();
        assert_eq!(metadata.code(), "UNKNOWN_HOST");
        fake.takes_addresses(more.network.subnet);
        networks.doubt();
        let moved = networks.ensure("w7", &NetworkSettings::default()).await.unwrap();
        assert_ne!(moved.network.subnet, more.network.subnet);
        assert_eq!(fake.asked(), ["wall in w7", "wall in w7"]);
        networks.remove("w7").await.unwrap();
        networks.remove("w7").await.unwrap();
        assert_eq!(fake.asked(), ["tear down w7"]);
    }
}
