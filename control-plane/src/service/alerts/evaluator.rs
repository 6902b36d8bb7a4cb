//! Looks at what happened in every workspace that has rules, and writes the alerts that come of it.
//!
//! One control plane of a database does it at a time: it holds a lease, and writes how far it has looked in the same step as what came
//! of it, from the revision that it has read. So nothing is missed or told twice over a restart, also where two take themselves for
//! the one. What the broker does not keep any more is an alert of each rule that waits for its events.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tandem_client::{Client, Event, EventQuery};
use tokio::sync::watch;

use super::{
    ALERT, OPEN, PROGRESS, RULE,
    judge::{Progress, Rule, Seen, Verdict, current},
};
use crate::{
    clock,
    error::Failure,
    metrics::Metrics,
    random,
    service::{
        alert::{AlertDocument, AlertEvent, DeliveryState, RuleDocument},
        scoped::{document, encode},
    },
    store::{Delivery, Happening, Judged, Resource, Store, StoreError},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// As the database calls the turn, and how long whoever looks has it, in milliseconds.
const TURN: &str = "alerts";
const TURN_MS: i64 = 10_000;
/// Workspaces that are read at once, and that are looked at at once.
const PAGE: u32 = 50;
const AT_ONCE: usize = 4;
/// Events, and happenings, of one look at a workspace.
const MOST_EVENTS: usize = 1_000;
const MOST_HAPPENINGS: u32 = 500;
/// How long the broker may take for them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events that are looked at again after a start, at the most, when none of them was wanted.
const UNSAVED: u64 = 500;
/// Of the newest 100,000 events that the broker keeps: so far back it is begun where some are gone, since more come meanwhile.
const KEPT: u64 = 90_000;
/// What an alert says happened that is about events that nobody has looked at.
const MISSED: &str = "events_missed";
/// Deliveries of a workspace that wait.
const MAX_DELIVERIES: u64 = 1_000;

/// See above.
pub(crate) struct Evaluator {
    store: Store,
    /// The broker, as this control plane.
    broker: Client,
    metrics: Arc<Metrics>,
    holder: String,
}

/// What the broker has said.
#[derive(Debug, Default)]
struct Heard {
    events: Vec<Event>,
    /// Where to go on; 0: it was not asked, or did not answer.
    next: u64,
    /// Of events that are gone: the first one.
    missed_from: Option<u64>,
}

/// What comes of a look, before it is written.
struct Outcome {
    workspace: String,
    fired: Vec<(Rule, AlertDocument, String)>,
    /// By how many alerts grow, and the last happening.
    grown: Vec<(String, Seen)>,
}

impl Evaluator {
    pub(crate) fn new(store: Store, broker: Client, metrics: Arc<Metrics>) -> Self {
        Self { store, broker, metrics, holder: random::id("cp") }
    }

    /// Until told to stop.
    pub(crate) async fn run(self, mut stopping: watch::Receiver<bool>) {
        loop {
            let looked = tokio::select! {
                looked = self.look() => looked,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            if let Err(why) = looked {
                tracing::warn!(code = why.code(), %why, "what happened has to wait for its rules");
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = stopping.wait_for(|stopping| *stopping) => break,
            }
        }
        if let Err(error) = self.store.give_back((TURN, &self.holder)).await {
            tracing::warn!(%error, "the turn is not given back; others wait for its end");
        }
    }

    /// Looks at all workspaces once, as long as the turn is its own.
    async fn look(&self) -> Result<(), Failure> {
        let mut after = String::new();
        loop {
            let now_ms = clock::unix_ms();
            if !self.store.lease((TURN, &self.holder), (now_ms, now_ms + TURN_MS)).await? {
                return Ok(());
            }
            let page = self.store.scopes(RULE.name, &after, PAGE).await?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            let looks = stream::iter(page).map(|workspace| async move {
                let looked = self.look_at(&workspace).await;
                (workspace, looked)
            });
            // Whatever is wrong with one workspace is not wrong with the others.
            let looks: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
            for (workspace, looked) in looks {
                if let Err(why) = looked {
                    tracing::warn!(workspace, code = why.code(), %why, "what happened there has to wait for its rules");
                }
            }
            after = last;
        }
    }

    async fn look_at(&self, workspace: &str) -> Result<(), Failure> {
        let read = |row: Resource| Ok(Rule { document: document::<RuleDocument>(&row)?, id: row.id, name: row.name });
        let rules = self.store.all_within(RULE.name, workspace, RULE.most).await?;
        let mut rules = rules.into_iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
        rules.retain(|rule| rule.document.enabled);
        let row = self.store.get(PROGRESS, workspace).await?;
        let known = row.as_ref().map(document::<Progress>).transpose()?.unwrap_or_default();
        let mut progress = current(known.clone(), &rules);
        let happenings = self.store.happenings(workspace, MOST_HAPPENINGS).await?;
        let heard = self.hear(workspace, &rules, &progress).await;
        let mut outcome = Outcome { workspace: workspace.to_owned(), fired: Vec::new(), grown: Vec::new() };
        if let Some(from) = heard.missed_from {
            outcome.say_missed(&rules, (from, heard.next));
        }
        let seen = heard.events.iter().filter_map(of_event).chain(happenings.iter().filter_map(of_happening));
        for seen in seen {
            outcome.judge(&rules, &mut progress, &seen);
        }
        let mut is_far = false;
        for state in progress.values_mut().filter(|state| state.next_event > 0 && heard.next > state.next_event) {
            let before = known.values().map(|known| known.next_event).min().unwrap_or(0);
            is_far |= heard.next.saturating_sub(before) >= UNSAVED;
            state.next_event = heard.next;
        }
        // What only moved on a little is looked at again after a start, and comes to nothing again.
        let is_same = known.len() == progress.len()
            && known.iter().all(|(id, before)| progress.get(id).is_some_and(|after| after.is_as(before)));
        if is_same && !is_far && outcome.is_empty() && happenings.is_empty() {
            return Ok(());
        }
        self.write(outcome, (row, progress), &happenings).await
    }

    /// What the broker has said since the rules have looked. Where it does not answer, nothing: they look again.
    async fn hear(&self, workspace: &str, rules: &[Rule], progress: &Progress) -> Heard {
        let mut types: Vec<_> = rules.iter().filter_map(|rule| rule.document.condition.event.wire()).collect();
        types.dedup();
        let from = progress.values().map(|state| state.next_event).filter(|next| *next > 0).min();
        let Some(from_event) = from.filter(|_| !types.is_empty()) else { return Heard::default() };
        let query = EventQuery { from_event, types, sandbox_id: None, follow: false };
        let hearing = async {
            match self.read(workspace, query.clone()).await {
                Err(error) if error.reason() == "EVENT_GAP" => {
                    let newest = EventQuery { from_event: 0, ..query };
                    let newest = self.broker.events(workspace, newest).await?.cursor();
                    let next = newest.saturating_sub(KEPT).max(from_event.saturating_add(1));
                    Ok(Heard { events: Vec::new(), next, missed_from: Some(from_event) })
                }
                heard => heard,
            }
        };
        match tokio::time::timeout(PATIENCE, hearing).await {
            Ok(Ok(heard)) => heard,
            Ok(Err(error)) => {
                tracing::debug!(workspace, %error, "the events of a workspace cannot be read now");
                Heard::default()
            }
            Err(_) => Heard::default(),
        }
    }

    async fn read(&self, workspace: &str, query: EventQuery) -> Result<Heard, tandem_client::Error> {
        let mut stream = self.broker.events(workspace, query).await?;
        let mut events = Vec::new();
        while events.len() < MOST_EVENTS
            && let Some(event) = stream.next().await?
        {
            events.push(event);
        }
        Ok(Heard { events, next: stream.cursor(), missed_from: None })
    }

    /// Writes what came of a look, in one step.
    async fn write(
        &self,
        outcome: Outcome,
        (before, progress): (Option<Resource>, Progress),
        happenings: &[Happening],
    ) -> Result<(), Failure> {
        let (now_ms, workspace) = (clock::unix_ms(), outcome.workspace.clone());
        let (encoded, state) = (encode(&progress)?, "active".to_owned());
        let progress = match before {
            Some(before) => Resource { document: encoded, update_ms: now_ms, ..before },
            None => {
                let (kind, name) = (PROGRESS.to_owned(), PROGRESS.to_owned());
                let (id, scope) = (workspace.clone(), workspace.clone());
                let (create_ms, update_ms, revision) = (now_ms, now_ms, 0);
                Resource { kind, id, scope, name, state, revision, document: encoded, create_ms, update_ms, due_ms: 0 }
            }
        };
        let waiting = self.store.waiting_deliveries(&workspace).await?;
        let mut judged = Judged {
            progress,
            fired: Vec::new(),
            grown: grown(&self.store, &outcome.grown).await?,
            deliveries: Vec::new(),
            seen: happenings.iter().map(|happening| happening.id.clone()).collect(),
        };
        outcome.rows(&mut judged, now_ms, waiting)?;
        match self.store.judge(&judged).await {
            Ok(()) => {}
            // Somebody has acknowledged an alert, or looks himself: the next look begins anew.
            Err(StoreError::Changed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let fired = judged.fired.len();
        self.metrics.alerts_fired.inc_by(fired as u64);
        if fired > 0 {
            let gone = self.store.forget_oldest((ALERT.name, &workspace), ALERT.most).await?;
            if gone > 0 {
                self.metrics.alerts_forgotten.inc_by(gone);
                tracing::info!(workspace, gone, "alerts are forgotten: only the newest are kept");
            }
        }
        Ok(())
    }
}

/// The alerts that are about more by now. One that is not kept any more does not grow.
async fn grown(store: &Store, by: &[(String, Seen)]) -> Result<Vec<Resource>, Failure> {
    let mut rows: Vec<(Resource, AlertDocument)> = Vec::new();
    for (id, seen) in by {
        let at = match rows.iter().position(|(row, _)| row.id == *id) {
            Some(at) => at,
            None => {
                let Some(row) = store.get(ALERT.name, id).await? else { continue };
                let said = document(&row)?;
                rows.push((row, said));
                rows.len() - 1
            }
        };
        if let Some((row, said)) = rows.get_mut(at) {
            said.grow(seen);
            row.update_ms = clock::unix_ms();
        }
    }
    rows.into_iter().map(|(row, said)| Ok(Resource { document: encode(&said)?, ..row })).collect()
}

impl AlertDocument {
    fn grow(&mut self, seen: &Seen) {
        self.count = self.count.saturating_add(seen.weight);
        self.last_ms = self.last_ms.max(seen.at_ms);
    }
}

impl Outcome {
    fn is_empty(&self) -> bool {
        self.fired.is_empty() && self.grown.is_empty()
    }

    fn judge(&mut self, rules: &[Rule], progress: &mut Progress, seen: &Seen) {
        for rule in rules {
            let Some(state) = progress.get_mut(&rule.id) else { continue };
            match state.judge(&rule.document, seen) {
                Verdict::Nothing => {}
                Verdict::Grows(id) => match self.fired.iter_mut().find(|(_, _, fired)| *fired == id) {
                    Some((_, said, _)) => said.grow(seen),
                    None => self.grown.push((id, seen.clone())),
                },
                Verdict::Fires(count) => {
                    let id = random::id("alert");
                    state.fired(&rule.document, &id, seen.at_ms);
                    let text = match seen.text.as_str() {
                        "" => format!("{} of sandbox {:?}", seen.event.name(), seen.sandbox),
                        text => format!("{} of sandbox {:?}: {text}", seen.event.name(), seen.sandbox),
                    };
                    let said = said(rule, (&seen.event.name(), &seen.sandbox), (text, count), seen.at_ms);
                    self.fired.push((rule.clone(), said, id));
                }
            }
        }
    }

    /// Each rule that waits for events of the broker says that some are gone which nobody has looked at.
    fn say_missed(&mut self, rules: &[Rule], (from, next): (u64, u64)) {
        for rule in rules.iter().filter(|rule| rule.document.condition.event.wire().is_some()) {
            let text = format!(
                "events {from} to {} of workspace {:?} were not looked at: the broker did not keep them until then",
                next.saturating_sub(1),
                self.workspace
            );
            let count = next.saturating_sub(from);
            let said = said(rule, (MISSED, ""), (text, count), clock::unix_ms());
            self.fired.push((rule.clone(), said, random::id("alert")));
        }
    }

    /// What fired, as rows, and what their webhooks have to hear.
    fn rows(self, judged: &mut Judged, now_ms: i64, mut waiting: u64) -> Result<(), Failure> {
        for (rule, mut said, id) in self.fired {
            if rule.document.webhook.is_some() && waiting >= MAX_DELIVERIES {
                said.delivery = DeliveryState::Failed;
                said.delivery_error = format!("{MAX_DELIVERIES} deliveries of the workspace wait already");
                tracing::warn!(workspace = self.workspace, rule = rule.id, "too many deliveries wait; one is given up");
            } else if rule.document.webhook.is_some() {
                waiting += 1;
                said.delivery = DeliveryState::Waiting;
                judged.deliveries.push(Delivery {
                    id: random::id("msg"),
                    workspace: self.workspace.clone(),
                    rule_id: rule.id.clone(),
                    alert_id: id.clone(),
                    body: told(&self.workspace, &id, &said, now_ms),
                    attempts: 0,
                    due_ms: now_ms,
                });
            }
            judged.fired.push(Resource {
                kind: ALERT.name.to_owned(),
                name: format!("{}/{id}", rule.id),
                id,
                scope: self.workspace.clone(),
                state: OPEN.to_owned(),
                revision: 1,
                document: encode(&said)?,
                create_ms: now_ms,
                update_ms: now_ms,
                due_ms: 0,
            });
        }
        Ok(())
    }
}

fn said(rule: &Rule, (event, sandbox): (&str, &str), (text, count): (String, u64), last_ms: i64) -> AlertDocument {
    AlertDocument {
        rule_id: rule.id.clone(),
        rule_name: rule.name.clone(),
        severity: rule.document.severity,
        event: event.to_owned(),
        sandbox_id: sandbox.to_owned(),
        text,
        count,
        last_ms,
        acknowledged_by: String::new(),
        acknowledge_ms: 0,
        delivery: DeliveryState::None,
        attempts: 0,
        delivery_error: String::new(),
    }
}

/// What a webhook hears of an alert.
fn told(workspace: &str, id: &str, said: &AlertDocument, now_ms: i64) -> String {
    let data = serde_json::json!({
        "id": id,
        "workspace_id": workspace,
        "rule_id": said.rule_id,
        "rule_name": said.rule_name,
        "severity": said.severity,
        "event": said.event,
        "sandbox_id": said.sandbox_id,
        "text": said.text,
        "count": said.count,
        "last_time": clock::written(said.last_ms),
    });
    serde_json::json!({ "type": "alert.fired", "timestamp": clock::written(now_ms), "data": data }).to_string()
}

fn of_event(event: &Event) -> Option<Seen> {
    let wire = event.r#type();
    let known = AlertEvent::ALL.iter().copied().find(|known| known.wire() == Some(wire))?;
    let at_ms = event
        .time
        .as_ref()
        .map_or(0, |time| time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / 1_000_000));
    Some(Seen {
        event: known,
        sandbox: event.sandbox_id.clone(),
        text: super::cut(&event.text),
        weight: event.count.max(1),
        at_ms,
        number: Some(event.event_id),
    })
}

fn of_happening(happening: &Happening) -> Option<Seen> {
    // One that a later version has written is none that this one's rules wait for.
    let event = AlertEvent::ALL.iter().copied().find(|known| known.name() == happening.kind)?;
    let (sandbox, text) = (happening.sandbox.clone(), happening.detail.clone());
    Some(Seen { event, sandbox, text, weight: 1, at_ms: happening.happen_ms, number: None })
}

#[cfg(test)]
#[path = "evaluator_tests.rs"]
mod tests;
