//! Rules, and alerts that have fired.
//!
//! [`evaluator`] looks at what happened and writes alerts, [`deliverer`] tells webhooks of them. Both go on from what the database
//! holds: whoever starts next misses nothing.

mod deliverer;
mod evaluator;
mod judge;
mod webhook;

use tandem_client::EventQuery;

pub(crate) use self::{deliverer::Deliverer, evaluator::Evaluator, webhook::Sender};
use super::{
    alert::{AlertDocument, AlertEvent, Condition, RuleDocument, Severity, Webhook},
    caller::Caller,
    patch::Patch,
    scoped::{self, Kind, Scoped},
    values::Sealed,
};
use crate::{
    clock,
    error::{Failure, Reason},
    random,
    secrets::{Place, Secret, Secrets},
    store::{Happening, Resource, Store, StoreError},
};

/// As the database knows rules.
pub(crate) const RULE: Kind =
    Kind { name: "alert_rule", title: "alert rule", most: 50, unknown: Reason::UnknownAlertRule };
/// As the database knows alerts; the newest ones of a workspace are kept.
pub(crate) const ALERT: Kind = Kind { name: "alert", title: "alert", most: 1_000, unknown: Reason::UnknownAlert };
/// As the database calls what the rules of a workspace remember.
pub(crate) const PROGRESS: &str = "alert_progress";
/// The states of an alert.
pub(crate) const OPEN: &str = "open";
pub(crate) const ACKNOWLEDGED: &str = "acknowledged";
/// Happenings of a workspace that wait to be looked at. That takes a second.
const MAX_HAPPENINGS: u32 = 10_000;
/// Characters of what is said about a happening.
const MAX_TEXT_CHARS: usize = 1_000;

/// A rule that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct NewRule {
    pub(crate) workspace: String,
    pub(crate) name: String,
    pub(crate) enabled: bool,
    pub(crate) condition: Condition,
    pub(crate) severity: Severity,
    pub(crate) quiet_seconds: u64,
    /// Where, and the secret that signs.
    pub(crate) webhook: Option<(String, Secret)>,
}

/// What is to change of a rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleChanges {
    pub(crate) name: Option<String>,
    pub(crate) enabled: Option<bool>,
    pub(crate) condition: ConditionChanges,
    pub(crate) severity: Option<Severity>,
    pub(crate) quiet_seconds: Option<u64>,
    pub(crate) webhook: Patch<WebhookChanges>,
}

/// What is to change of a condition.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConditionChanges {
    pub(crate) event: Option<AlertEvent>,
    pub(crate) sandbox_id: Patch<String>,
    pub(crate) count: Option<u64>,
    pub(crate) window_seconds: Option<u64>,
}

/// What is to change of a webhook.
#[derive(Debug, Clone, Default)]
pub(crate) struct WebhookChanges {
    pub(crate) url: Option<String>,
    pub(crate) secret: Option<Secret>,
}

/// Rules and alerts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Alerts {
    rules: Scoped,
    alerts: Scoped,
    secrets: Secrets,
    /// Webhooks may be on this machine.
    allow_loopback: bool,
}

/// Where the secret of a rule belongs.
fn place(row: &Resource) -> Place<'_> {
    Place { kind: RULE.name, workspace: &row.scope, id: &row.id, field: "webhook.secret" }
}

impl Alerts {
    pub(crate) fn new(store: Store, secrets: Secrets, allow_loopback: bool) -> Self {
        let (rules, alerts) = (Scoped::new(store.clone(), RULE), Scoped::new(store, ALERT));
        Self { rules, alerts, secrets, allow_loopback }
    }

    /// See [`Scoped::list`].
    pub(crate) fn rules(&self) -> &Scoped {
        &self.rules
    }

    /// See [`Scoped::list`].
    pub(crate) fn fired(&self) -> &Scoped {
        &self.alerts
    }

    /// Sets a rule up. What happens from now on counts.
    pub(crate) async fn create_rule(&self, caller: &Caller, new: NewRule) -> Result<Resource, Failure> {
        self.rules.workspace(caller, &new.workspace).await?;
        let row = self.rules.row(random::id("rule"), &new.workspace, new.name, String::new());
        let NewRule { enabled, condition, severity, quiet_seconds, .. } = new;
        let (webhook, from_event, since_ms) = (None, 0, row.create_ms);
        let mut document = RuleDocument { enabled, condition, severity, quiet_seconds, webhook, from_event, since_ms };
        document.check(&row.name)?;
        document.webhook = new.webhook.map(|(url, secret)| self.webhook(&row, url, &secret)).transpose()?;
        document.from_event = next_event(caller, &row.scope, &document.condition).await?;
        self.rules.insert(Resource { document: scoped::encode(&document)?, ..row }).await
    }

    fn webhook(&self, row: &Resource, url: String, secret: &Secret) -> Result<Webhook, Failure> {
        webhook::check(&url, self.allow_loopback)?;
        webhook::key(secret)?;
        Ok(Webhook { url, secret: Sealed::new(&self.secrets, place(row), secret)? })
    }

    /// Changes a rule. Another condition, or one that is enabled again, begins with what happens from now on.
    pub(crate) async fn change_rule(
        &self,
        caller: &Caller,
        (id, seen): (&str, Option<i64>),
        changes: RuleChanges,
    ) -> Result<Resource, Failure> {
        let row = self.rules.seen(caller, id, seen).await?;
        let before: RuleDocument = scoped::document(&row)?;
        let ConditionChanges { event, sandbox_id, count, window_seconds } = changes.condition;
        let condition = Condition {
            event: event.unwrap_or(before.condition.event),
            sandbox_id: match sandbox_id {
                Patch::Keep => before.condition.sandbox_id.clone(),
                Patch::Clear => None,
                Patch::Set(sandbox) => Some(sandbox),
            },
            count: count.unwrap_or(before.condition.count),
            window_seconds: window_seconds.unwrap_or(before.condition.window_seconds),
        };
        let name = changes.name.unwrap_or_else(|| row.name.clone());
        let mut document = RuleDocument {
            enabled: changes.enabled.unwrap_or(before.enabled),
            condition,
            severity: changes.severity.unwrap_or(before.severity),
            quiet_seconds: changes.quiet_seconds.unwrap_or(before.quiet_seconds),
            ..before.clone()
        };
        document.check(&name)?;
        document.webhook = self.changed_webhook(&row, before.webhook, changes.webhook)?;
        if document.condition != before.condition || document.enabled && !before.enabled {
            document.from_event = next_event(caller, &row.scope, &document.condition).await?;
            document.since_ms = clock::unix_ms();
        }
        self.rules.update(Resource { name, document: scoped::encode(&document)?, ..row }).await
    }

    fn changed_webhook(
        &self,
        row: &Resource,
        before: Option<Webhook>,
        changes: Patch<WebhookChanges>,
    ) -> Result<Option<Webhook>, Failure> {
        let missing = |field: &str, text: &str| Failure::field(&format!("webhook.{field}"), text);
        let (url, secret) = match changes {
            Patch::Keep => return Ok(before),
            Patch::Clear => return Ok(None),
            Patch::Set(WebhookChanges { url, secret }) => (url, secret),
        };
        let url = url.or_else(|| before.as_ref().map(|webhook| webhook.url.clone()));
        let url = url.ok_or_else(|| missing("url", "the rule has no webhook yet; say where it is"))?;
        match (secret, before) {
            (Some(secret), _) => self.webhook(row, url, &secret).map(Some),
            (None, Some(before)) => {
                webhook::check(&url, self.allow_loopback)?;
                Ok(Some(Webhook { url, ..before }))
            }
            (None, None) => Err(missing("secret", "the rule has no webhook yet; give the secret that signs")),
        }
    }

    /// Forgets a rule. What it has fired stays; what its webhook did not hear of is not told any more.
    pub(crate) async fn delete_rule(&self, caller: &Caller, id: &str, seen: Option<i64>) -> Result<(), Failure> {
        let row = self.rules.seen(caller, id, seen).await?;
        self.rules.remove(&row).await
    }

    /// Says that somebody has seen an alert. Who says so second changes nothing.
    pub(crate) async fn acknowledge(
        &self,
        caller: &Caller,
        (id, seen): (&str, Option<i64>),
    ) -> Result<Resource, Failure> {
        // The alert may grow, or its delivery go on, in between: that is no conflict for who has named no revision.
        for _ in 0..webhook::WRITES {
            let row = self.alerts.seen(caller, id, seen).await?;
            if row.state == ACKNOWLEDGED {
                return Ok(row);
            }
            let mut document: AlertDocument = scoped::document(&row)?;
            document.acknowledged_by = caller.subject().to_owned();
            document.acknowledge_ms = clock::unix_ms();
            let state = ACKNOWLEDGED.to_owned();
            let changed = Resource { state, document: scoped::encode(&document)?, ..row };
            match self.alerts.update(changed).await {
                Err(Failure::Refused { reason: Reason::RevisionChanged, .. }) if seen.is_none() => {}
                done => return done,
            }
        }
        Err(Failure::new(Reason::Busy, "the alert changes all the time; try again")
            .after(std::time::Duration::from_secs(1)))
    }

    /// Says that the control plane has seen something happen to a sandbox. Rules of its workspace look at it within about a second;
    /// where there is none nothing is kept.
    ///
    /// # Errors
    /// `TOO_MANY_HAPPENINGS` where 10,000 of the workspace were not looked at yet; `DATABASE_UNAVAILABLE`.
    pub(crate) async fn happened(
        &self,
        workspace: &str,
        sandbox_id: &str,
        event: AlertEvent,
        text: &str,
    ) -> Result<(), Failure> {
        if self.rules.store().all_within(RULE.name, workspace, 1).await?.is_empty() {
            return Ok(());
        }
        let happening = Happening {
            id: random::id("seen"),
            workspace: workspace.to_owned(),
            kind: event.name(),
            sandbox: sandbox_id.to_owned(),
            detail: cut(text),
            happen_ms: clock::unix_ms(),
        };
        match self.rules.store().happened(&happening, MAX_HAPPENINGS).await {
            Err(StoreError::Full) => {
                tracing::warn!(
                    workspace,
                    sandbox_id,
                    event = happening.kind,
                    "too much happens; no rule looks at this"
                );
                let text = format!("{MAX_HAPPENINGS} happenings of workspace {workspace:?} wait for its rules already");
                Err(Failure::new(Reason::TooManyHappenings, text).after(std::time::Duration::from_secs(1)))
            }
            done => Ok(done?),
        }
    }
}

/// A text that is not too long, and can be kept by both databases.
fn cut(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(MAX_TEXT_CHARS).collect()
}

/// The next event of the broker, for what begins now; 0 where a condition is about none of the broker's.
async fn next_event(caller: &Caller, workspace: &str, condition: &Condition) -> Result<u64, Failure> {
    if condition.event.wire().is_none() {
        return Ok(0);
    }
    let query = EventQuery { from_event: 0, follow: false, ..EventQuery::default() };
    Ok(caller.broker.events(workspace, query).await.map_err(Failure::of_question)?.cursor())
}
