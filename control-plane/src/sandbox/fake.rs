//! Containers that are none: for tests of what is decided, without Docker.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future, stream};
use parking_lot::Mutex;

use super::{
    Answer, Container, Doing, Exec, Executed, Happening, Host, LogLine, LogQuery, Network, RuntimeError,
    SandboxRuntime, Seen, Told, Usage,
};

/// See above. Cheap to clone: all see the same.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    containers: BTreeMap<String, (Container, Doing)>,
    networks: BTreeMap<String, Network>,
    /// What was asked for, in order.
    asked: Vec<String>,
    /// Bytes of volumes.
    disk: HashMap<String, u64>,
    usage: HashMap<String, Usage>,
    /// Addresses that are others'.
    taken: Option<[u8; 3]>,
    /// How often the image was built anew.
    builds: u32,
    /// What every call is answered with.
    down: Option<RuntimeError>,
}

impl Fake {
    /// What was asked for since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().asked)
    }

    /// From here on nothing is answered; None: it is again.
    pub(crate) fn fail(&self, with: Option<RuntimeError>) {
        self.0.lock().down = with;
    }

    /// A container does something by itself.
    pub(crate) fn does(&self, id: &str, doing: Doing) {
        if let Some((_, does)) = self.0.lock().containers.get_mut(id) {
            *does = doing;
        }
    }

    /// A container that nobody has asked for.
    pub(crate) fn stray(&self, container: Container) {
        self.0.lock().containers.insert(container.id.clone(), (container, Doing::Running));
    }

    /// The image is another one from here on.
    pub(crate) fn builds(&self) {
        self.0.lock().builds += 1;
    }

    pub(crate) fn takes_addresses(&self, subnet: [u8; 3]) {
        self.0.lock().taken = Some(subnet);
    }

    pub(crate) fn holds(&self, id: &str, bytes: u64) {
        self.0.lock().disk.insert(id.to_owned(), bytes);
    }

    pub(crate) fn takes(&self, id: &str, usage: Usage) {
        self.0.lock().usage.insert(id.to_owned(), usage);
    }

    fn answer<T: Send + 'static>(
        &self,
        asked: Option<String>,
        with: impl FnOnce(&mut Inside) -> Result<T, RuntimeError>,
    ) -> Answer<'static, T> {
        let mut inside = self.0.lock();
        inside.asked.extend(asked);
        let answer = match inside.down.clone() {
            Some(error) => Err(error),
            None => with(&mut inside),
        };
        future::ready(answer).boxed()
    }
}

impl SandboxRuntime for Fake {
    fn host(&self) -> Answer<'_, Host> {
        self.answer(None, |_| Ok(Host { memory_bytes: 8 << 30, cpus: 4, disk_bytes: None }))
    }

    fn image_id<'a>(&'a self, image: &'a str) -> Answer<'a, Option<String>> {
        let known = image == "aintandem/sandbox";
        self.answer(None, move |inside| Ok(known.then(|| format!("sha256:{}", inside.builds))))
    }

    fn warm_up<'a>(&'a self, container: &'a Container) -> Answer<'a, ()> {
        let container = container.clone();
        self.answer(Some("warm up".to_owned()), move |inside| {
            inside.containers.insert(container.id.clone(), (container, Doing::Running));
            Ok(())
        })
    }

    fn wall_in<'a>(&'a self, network: &'a Network) -> Answer<'a, ()> {
        let network = network.clone();
        self.answer(Some(format!("wall in {}", network.workspace)), move |inside| {
            if inside.taken == Some(network.subnet) {
                return Err(RuntimeError::AddressesTaken("they are others'".to_owned()));
            }
            inside.networks.insert(network.key.clone(), network);
            Ok(())
        })
    }

    fn tear_down<'a>(&'a self, network: &'a Network) -> Answer<'a, ()> {
        let network = network.clone();
        self.answer(Some(format!("tear down {}", network.workspace)), move |inside| {
            inside.networks.remove(&network.key);
            Ok(())
        })
    }

    fn create<'a>(&'a self, container: &'a Container) -> Answer<'a, ()> {
        let container = container.clone();
        self.answer(Some(format!("create {}", container.name)), move |inside| {
            if !inside.networks.contains_key(&container.network) {
                return Err(RuntimeError::Refused("there is no such network".to_owned()));
            }
            match inside.containers.get(&container.id) {
                Some((before, _)) if *before == container => {}
                _ => drop(inside.containers.insert(container.id.clone(), (container, Doing::Created))),
            }
            Ok(())
        })
    }

    fn start<'a>(&'a self, id: &'a str, _: &'a [u8]) -> Answer<'a, ()> {
        let id = id.to_owned();
        self.answer(Some("start".to_owned()), move |inside| match inside.containers.get_mut(&id) {
            Some((_, doing)) => {
                *doing = Doing::Running;
                Ok(())
            }
            None => Err(RuntimeError::Gone(id)),
        })
    }

    fn stop<'a>(&'a self, id: &'a str, _: Duration) -> Answer<'a, ()> {
        let id = id.to_owned();
        self.answer(Some("stop".to_owned()), move |inside| {
            if let Some((_, doing @ Doing::Running)) = inside.containers.get_mut(&id) {
                *doing = Doing::Ended { exit_code: 143, out_of_memory: false };
            }
            Ok(())
        })
    }

    fn remove<'a>(&'a self, id: &'a str, with_volume: bool) -> Answer<'a, ()> {
        let id = id.to_owned();
        self.answer(Some(if with_volume { "remove all" } else { "remove" }.to_owned()), move |inside| {
            inside.containers.remove(&id);
            Ok(())
        })
    }

    fn look(&self) -> Answer<'_, Vec<Seen>> {
        self.answer(None, |inside| {
            let seen = inside.containers.iter().map(|(id, (_, doing))| Seen { id: id.clone(), doing: doing.clone() });
            Ok(seen.collect())
        })
    }

    fn look_at<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Seen>> {
        let id = id.to_owned();
        self.answer(None, move |inside| {
            Ok(inside.containers.get(&id).map(|(_, doing)| Seen { id, doing: doing.clone() }))
        })
    }

    fn logs<'a>(&'a self, id: &'a str, _: &'a LogQuery) -> Answer<'a, Told<LogLine>> {
        let line = LogLine { time: "2026-11-22T10:00:00Z".to_owned(), stream: "stderr", text: format!("I am {id}") };
        self.answer(None, move |_| Ok(stream::iter([Ok(line)]).boxed()))
    }

    fn usage<'a>(&'a self, id: &'a str) -> Answer<'a, Usage> {
        let id = id.to_owned();
        self.answer(None, move |inside| Ok(inside.usage.get(&id).copied().unwrap_or_default()))
    }

    fn disk<'a>(&'a self, _: &'a [String]) -> Answer<'a, HashMap<String, u64>> {
        self.answer(None, |inside| Ok(inside.disk.clone()))
    }

    fn exec<'a>(&'a self, _: &'a str, wanted: &'a Exec) -> Answer<'a, Executed> {
        let stdout = wanted.command.join(" ").into_bytes();
        self.answer(None, move |_| Ok(Executed { exit_code: Some(0), stdout, ..Executed::default() }))
    }

    fn happenings(&self) -> Told<Happening> {
        stream::pending().boxed()
    }
}
