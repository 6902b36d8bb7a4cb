//! The model of who and what is there: workspaces, sandboxes, topics and follows.

use std::collections::BTreeMap;

use super::{publish::Answer, state::*};
use crate::{
    command::{create_workspace::Settings, register_sandbox::InboxSettings},
    machine::events::EventKind,
    rejection::Reason,
};

/// `*` stands for one part, `>` at the end for one or more.
pub(super) fn fits(pattern: &str, topic: &str) -> bool {
    let (pattern, topic): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), topic.split('.').collect());
    match pattern.split_last() {
        Some((&">", head)) => topic.len() > head.len() && fits_parts(head, &topic[..head.len()]),
        _ => fits_parts(&pattern, &topic),
    }
}

fn fits_parts(pattern: &[&str], topic: &[&str]) -> bool {
    pattern.len() == topic.len() && pattern.iter().zip(topic).all(|(wanted, part)| *wanted == "*" || wanted == part)
}

impl Model {
    pub(super) fn create(&mut self, name: &str, settings: Settings) -> Answer {
        if self.workspaces.contains_key(name) {
            return Answer::Refused(Reason::WorkspaceExists);
        }
        if self.workspaces.len() as u32 >= MAX_WORKSPACES {
            return Answer::Refused(Reason::TooManyWorkspaces);
        }
        self.created += 1;
        let workspace = Workspace {
            number: self.created,
            settings,
            last: 0,
            log: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            registered: 0,
            topics: BTreeMap::new(),
            topics_created: 0,
            events: Vec::new(),
            ids: BTreeMap::new(),
            producers: BTreeMap::new(),
            conversations: BTreeMap::new(),
            dead: BTreeMap::new(),
            notices: Vec::new(),
        };
        self.workspaces.insert(name.into(), workspace);
        Answer::Done
    }

    pub(super) fn update(&mut self, name: &str, settings: Settings) -> Answer {
        self.within(name, |workspace, _| {
            workspace.settings = settings;
            Answer::Done
        })
    }

    pub(super) fn delete(&mut self, name: &str) -> Answer {
        match self.workspaces.remove(name) {
            Some(_) => Answer::Done,
            None => Answer::Refused(Reason::UnknownWorkspace),
        }
    }

    /// A workspace that may have been deleted, and its name given to another one.
    pub(super) fn numbered(&mut self, number: u32) -> Option<&mut Workspace> {
        self.workspaces.values_mut().find(|workspace| workspace.number == number)
    }

    /// Something in a workspace that must be there; also given the time.
    pub(super) fn within(&mut self, name: &str, act: impl FnOnce(&mut Workspace, u64) -> Answer) -> Answer {
        match self.workspaces.get_mut(name) {
            Some(workspace) => act(workspace, self.now),
            None => Answer::Refused(Reason::UnknownWorkspace),
        }
    }
}

impl Workspace {
    pub(super) fn register(
        &mut self,
        now: u64,
        name: &str,
        settings: InboxSettings,
        capabilities: &[String],
    ) -> Answer {
        let created = self.number_of(name).is_none();
        if created {
            if self.sandboxes.len() as u32 >= MAX_SANDBOXES {
                return Answer::Refused(Reason::TooManySandboxes);
            }
            self.registered += 1;
            let number = self.registered;
            let sandbox = Sandbox {
                number,
                name: name.into(),
                settings,
                capabilities: Vec::new(),
                heard: now,
                online: true,
                watch: now + HEARTBEAT_MS,
                inbox: Vec::new(),
                follows: BTreeMap::new(),
                requests: BTreeMap::new(),
                full: false,
            };
            self.sandboxes.insert(number, sandbox);
            self.raise(now, EventKind::SandboxRegistered, name, 0, 0);
        }
        if let Some(sandbox) = self.named(name) {
            sandbox.settings = settings;
            sandbox.capabilities = capabilities.to_vec();
        }
        self.hear(now, self.number_of(name));
        Answer::Created(created)
    }

    pub(super) fn hear(&mut self, now: u64, number: Option<u32>) -> Answer {
        let Some(sandbox) = number.and_then(|number| self.sandboxes.get_mut(&number)) else {
            return Answer::Refused(Reason::UnknownSandbox);
        };
        sandbox.heard = now;
        if !sandbox.online {
            (sandbox.online, sandbox.watch) = (true, now + HEARTBEAT_MS);
            let name = sandbox.name.clone();
            self.raise(now, EventKind::SandboxOnline, &name, 0, 0);
        }
        Answer::Done
    }

    pub(super) fn unregister(&mut self, now: u64, name: &str) -> Answer {
        let Some(number) = self.number_of(name) else { return Answer::Refused(Reason::UnknownSandbox) };
        let abandoned = self.sandboxes.remove(&number).map_or(0, |sandbox| sandbox.inbox.len()) as u64;
        self.raise(now, EventKind::SandboxGone, name, 0, abandoned);
        Answer::Count(abandoned)
    }

    pub(super) fn create_topic(&mut self, now: u64, name: &str) -> Answer {
        if self.topics.contains_key(name) {
            return Answer::Created(false);
        }
        if self.topics.len() as u32 >= MAX_TOPICS {
            return Answer::Refused(Reason::TooManyTopics);
        }
        self.topics_created += 1;
        self.topics.insert(name.into(), Topic { order: self.topics_created, messages: 0, last: 0, created: now });
        Answer::Created(true)
    }

    pub(super) fn delete_topic(&mut self, name: &str) -> Answer {
        let Some(topic) = self.topics.remove(name) else { return Answer::Refused(Reason::UnknownTopic) };
        let source = Source::Topic(topic.order, name.into());
        for sandbox in self.sandboxes.values_mut() {
            sandbox.inbox.retain(|waiting| waiting.source != source);
        }
        Answer::Done
    }

    pub(super) fn follow(&mut self, name: &str, pattern: &str, from: Option<u64>) -> Answer {
        let next = self.last + 1;
        let topics: Vec<(u32, String)> = self.topics.iter().map(|(name, topic)| (topic.order, name.clone())).collect();
        let published: Vec<Message> = self.log.values().cloned().collect();
        let Some(sandbox) = self.named(name) else { return Answer::Refused(Reason::UnknownSandbox) };
        if let Some(from) = sandbox.follows.get(pattern) {
            return Answer::Followed(false, *from);
        }
        if sandbox.follows.len() as u32 >= MAX_FOLLOWS {
            return Answer::Refused(Reason::TooManyFollows);
        }
        let from = from.unwrap_or(next).clamp(1, next);
        for (order, topic) in topics {
            // Another pattern that covers it has begun somewhere already.
            if !fits(pattern, &topic) || sandbox.follows.keys().any(|other| fits(other, &topic)) {
                continue;
            }
            let to = To::Topic(topic.clone());
            for message in published.iter().filter(|message| message.to == to && message.sequence >= from) {
                if message.topic == order {
                    sandbox.inbox.push(Waiting::new(Source::Topic(order, topic.clone()), message.clone()));
                }
            }
        }
        sandbox.follows.insert(pattern.into(), from);
        Answer::Followed(true, from)
    }

    pub(super) fn unfollow(&mut self, name: &str, pattern: &str) -> Answer {
        let Some(sandbox) = self.named(name) else { return Answer::Refused(Reason::UnknownSandbox) };
        if sandbox.follows.remove(pattern).is_none() {
            return Answer::Refused(Reason::UnknownFollow);
        }
        let follows = &sandbox.follows;
        sandbox.inbox.retain(|waiting| match &waiting.source {
            Source::Topic(_, topic) => follows.keys().any(|pattern| fits(pattern, topic)),
            _ => true,
        });
        Answer::Done
    }
}
