//! The verbs of the scenarios, played through the public API of the client. Each returns what `expect` is compared to.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use futures_util::{TryStreamExt as _, future::join_all};
use serde_json::{Value, json};
use tandem_client::{
    Agent, AgentQuery, ApprovalState, Client, DeadLetterQuery, Decision, Destination, Error, FollowFrom, HistoryQuery,
    InboxDelivery, InboxLimits, Liveness, Message, MessageBuilder, MessageType, Nack, PublishStreamOptions, Receipt,
    RetryPolicy, Sandbox, SubscribeOptions, Token, broadcast, to_capability, to_sandbox, to_topic, wire_duration,
};
use tandem_tests::now;

use crate::{expect::difference, stage::Stage};

const WITHIN_MS: u64 = 10_000;

/// Why a step did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What a scenario can expect.
    Client(Error),
    /// What it cannot.
    Test(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

type Played = Result<Value, Failure>;

fn text(arguments: &Value, name: &str) -> String {
    arguments[name].as_str().unwrap_or_default().to_owned()
}

fn ms(arguments: &Value, name: &str) -> Option<Duration> {
    arguments[name].as_u64().map(Duration::from_millis)
}

fn within(arguments: &Value) -> Duration {
    ms(arguments, "within_ms").unwrap_or(Duration::from_millis(WITHIN_MS))
}

fn is(arguments: &Value, name: &str) -> bool {
    arguments[name] == true
}

/// A word of the contract, as scenarios write it.
fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}

impl Stage {
    pub(crate) async fn verb(&mut self, verb: &str, arguments: &Value, expected: &Value) -> Played {
        match verb {
            "register" | "heartbeat" | "unregister" | "inbox" | "discover" => {
                self.about_sandboxes(verb, arguments, expected).await
            }
            "publish" | "publish_many" | "request" | "respond" | "finish" => self.sending(verb, arguments).await,
            "subscribe" | "receive" | "receive_none" | "receive_all" | "close" => self.receiving(verb, arguments).await,
            "ack" | "nack" | "extend" => self.settling(verb, arguments).await,
            "cut" | "kill_leader" | "connect" | "token" | "wait" => self.around(verb, arguments).await,
            _ => self.of_workspace(verb, arguments, expected).await,
        }
    }

    async fn about_sandboxes(&self, verb: &str, arguments: &Value, expected: &Value) -> Played {
        let registry = self.client.registry(self.workspace.as_str());
        let sandbox = text(arguments, "sandbox");
        Ok(match verb {
            "register" => {
                let wanted = wanted(arguments);
                json!({ "created": registry.register(wanted).await?.1 })
            }
            "heartbeat" => {
                registry.heartbeat(sandbox).await?;
                Value::Null
            }
            "unregister" => json!({ "abandoned": registry.unregister(sandbox).await? }),
            "inbox" => {
                let ask = async || {
                    let found = registry.get(sandbox.as_str()).await?;
                    Ok(json!({"pending": found.pending_messages, "deferred": found.deferred_messages,
                        "dead_letters": found.dead_letters, "online": found.liveness() == Liveness::Online}))
                };
                until_it_fits(ask, arguments, expected).await?
            }
            _ => {
                let named = |name: &str| arguments[name].as_str().map(str::to_owned);
                let liveness = arguments["online"].as_bool();
                let query = AgentQuery {
                    role: named("role"),
                    capability: named("capability"),
                    agent_name: named("agent"),
                    liveness: liveness.map(|online| if online { Liveness::Online } else { Liveness::Offline }),
                };
                let found: Vec<_> = registry.discover(query).try_collect().await?;
                let agents = found
                    .into_iter()
                    .map(|one| format!("{}/{}", one.sandbox_id, one.agent.map(|agent| agent.name).unwrap_or_default()));
                json!({ "agents": agents.collect::<Vec<_>>() })
            }
        })
    }

    async fn sending(&mut self, verb: &str, arguments: &Value) -> Played {
        let (client, workspace) = (self.client.clone(), self.workspace.clone());
        match verb {
            "publish" => Ok(receipt(&client.publisher(workspace).publish(message(arguments)?).await?)),
            "respond" => {
                let asked = self.delivery(arguments)?.message();
                let content = arguments["content"].to_string();
                let response = MessageBuilder::response_to(asked, text(arguments, "from"), content);
                let response = response.content_type("application/json").build();
                Ok(receipt(&client.publisher(workspace).publish(response).await?))
            }
            "publish_many" => self.perhaps_behind(publish_many(client, workspace, arguments.clone()), arguments).await,
            "request" => {
                let request = Message {
                    r#type: kind(arguments["type"].as_str().unwrap_or("request"))?.into(),
                    requires_response: true,
                    ..message(arguments)?
                };
                let timeout = ms(arguments, "timeout_ms").unwrap_or_default();
                let asking = async move {
                    let answer = client.publisher(workspace).request(request, timeout).await?.message;
                    Ok(json!({"content": content(&answer), "from": answer.from_sandbox_id}))
                };
                self.perhaps_behind(asking, arguments).await
            }
            _ => {
                let call = self.calls.remove(arguments["call"].as_str().unwrap_or_default());
                let call = call.ok_or_else(|| Failure::Test("nothing of this name is under way".to_owned()))?;
                match tokio::time::timeout(within(arguments), call).await {
                    Ok(ended) => ended.unwrap_or_else(|error| Err(Failure::Test(error.to_string()))),
                    Err(_) => Err(Failure::Test("it is not finished".to_owned())),
                }
            }
        }
    }

    async fn perhaps_behind(
        &mut self,
        call: impl Future<Output = Played> + Send + 'static,
        arguments: &Value,
    ) -> Played {
        let Some(name) = arguments["background"].as_str() else { return call.await };
        self.calls.insert(name.to_owned(), tokio::spawn(call));
        Ok(Value::Null)
    }

    async fn receiving(&mut self, verb: &str, arguments: &Value) -> Played {
        if verb == "subscribe" {
            let defaults = SubscribeOptions::default();
            let credit = arguments["credit"].as_u64().map_or(defaults.credit_messages, |credit| credit as u32);
            let options = SubscribeOptions {
                credit_messages: credit,
                ack_deadline: ms(arguments, "ack_deadline_ms"),
                ..defaults
            };
            let inbox = self.client.inbox(self.workspace.as_str(), text(arguments, "sandbox"), options).await?;
            self.inboxes.insert(text(arguments, "as"), inbox);
            return Ok(Value::Null);
        }
        let via = text(arguments, "via");
        match verb {
            "receive" => {
                let Some(delivery) = self.next(&via, within(arguments)).await? else {
                    return Err(Failure::Test(format!("nothing came on {via}")));
                };
                let shown = shown(&delivery);
                let name = arguments["as"].as_str().unwrap_or("last");
                self.deliveries.insert(name.to_owned(), delivery);
                Ok(shown)
            }
            "receive_none" => match self.next(&via, ms(arguments, "for_ms").unwrap_or_default()).await? {
                Some(delivery) => Err(Failure::Test(format!("{} came on {via}", shown(&delivery)))),
                None => Ok(Value::Null),
            },
            "receive_all" => self.receive_all(&via, arguments).await,
            _ => match self.inboxes.remove(&via) {
                Some(inbox) => Ok(inbox.close().await.map(|()| Value::Null)?),
                None => Err(Failure::Test(format!("there is no inbox {via}"))),
            },
        }
    }

    async fn next(&mut self, via: &str, within: Duration) -> Result<Option<InboxDelivery>, Failure> {
        let inbox = self.inboxes.get_mut(via).ok_or_else(|| Failure::Test(format!("there is no inbox {via}")))?;
        match tokio::time::timeout(within, inbox.next()).await {
            Ok(Ok(Some(delivery))) => Ok(Some(delivery)),
            Ok(Ok(None)) => Err(Failure::Test(format!("the inbox {via} has ended"))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    async fn receive_all(&mut self, via: &str, arguments: &Value) -> Played {
        let mut missing: BTreeSet<u64> = (1..=arguments["count"].as_u64().unwrap_or_default()).collect();
        let (began, limit) = (now(), within(arguments));
        let (mut first_seen, mut acks) = (Vec::new(), tokio::task::JoinSet::new());
        while !missing.is_empty()
            && let Some(delivery) = self.next(via, limit.saturating_sub(began.elapsed())).await?
        {
            let number = content(delivery.message())["n"].as_u64().unwrap_or_default();
            if missing.remove(&number) {
                first_seen.push(number);
            }
            acks.spawn(async move { delivery.ack().await.is_ok() });
        }
        while acks.join_next().await.is_some() {}
        // One that lost its lease comes again, to whoever takes the next delivery: see to those, too.
        while let Some(again) = self.next(via, Duration::from_secs(1)).await? {
            again.ack().await?;
        }
        Ok(json!({"missing": missing, "in_order": first_seen.is_sorted()}))
    }

    fn delivery(&self, arguments: &Value) -> Result<&InboxDelivery, Failure> {
        let name = arguments["delivery"].as_str().unwrap_or("last");
        self.deliveries.get(name).ok_or_else(|| Failure::Test(format!("there is no delivery {name}")))
    }

    async fn settling(&self, verb: &str, arguments: &Value) -> Played {
        let delivery = self.delivery(arguments)?;
        match verb {
            "ack" => delivery.ack().await?,
            "extend" => delivery.extend(ms(arguments, "deadline_ms")).await?,
            _ => {
                let (delay, reason) = (ms(arguments, "delay_ms"), text(arguments, "reason"));
                delivery.nack(Nack { delay, reason, dead_letter: is(arguments, "dead_letter") }).await?;
            }
        }
        Ok(Value::Null)
    }

    async fn around(&mut self, verb: &str, arguments: &Value) -> Played {
        match verb {
            "cut" => self.relays.iter().for_each(tandem_tests::Relay::cut),
            "kill_leader" => self.broker.kill_leader(&self.workspace).await,
            "wait" => tokio::time::sleep(ms(arguments, "ms").unwrap_or_default()).await,
            "token" => {
                let seconds = arguments["expires_in_ms"].as_u64().unwrap_or_default().div_ceil(1_000).max(1);
                let (role, sandbox) = (text(arguments, "role"), text(arguments, "sandbox"));
                let expires_in = format!("{seconds}s");
                let mut wanted =
                    vec!["--role", &role, "--bind-workspace", &self.workspace, "--expires-in", &expires_in];
                if !sandbox.is_empty() {
                    wanted.extend(["--bind-sandbox", &sandbox]);
                }
                let token = self.broker.token(&wanted).await;
                self.tokens.insert(text(arguments, "as"), Some(token));
            }
            _ => {
                let token = arguments["token"].as_str().map(|name| self.tokens[name].clone());
                let (attempts, is_wrong) = (arguments["attempts"].as_u64(), is(arguments, "wrong_url"));
                self.connect(&text(arguments, "as"), |settings| {
                    settings.attempts = attempts.map_or(settings.attempts, |attempts| attempts as u32);
                    if let Some(token) = token {
                        settings.token = token.as_deref().map(Token::from_text);
                    }
                    if is_wrong {
                        // The discard port, where nobody listens.
                        (settings.endpoints, settings.attempts) = (vec!["http://127.0.0.1:9".to_owned()], 1);
                    }
                });
            }
        }
        Ok(Value::Null)
    }

    async fn of_workspace(&self, verb: &str, arguments: &Value, expected: &Value) -> Played {
        let (client, workspace) = (&self.client, self.workspace.as_str());
        let (topics, letters) = (client.topics(workspace), client.dead_letters(workspace));
        let (sandbox, topic) = (text(arguments, "sandbox"), text(arguments, "topic"));
        let query = DeadLetterQuery { sandbox_id: Some(sandbox.clone()), ..DeadLetterQuery::default() };
        Ok(match verb {
            "create_topic" => json!({ "created": topics.create(topic).await?.1 }),
            "delete_topic" => topics.delete(topic).await.map(|()| Value::Null)?,
            "follow" => json!({ "created": topics.follow(sandbox, topic, FollowFrom::Next).await?.1 }),
            "unfollow" => topics.unfollow(sandbox, topic).await.map(|()| Value::Null)?,
            "dead_letters" => {
                let ask = async || {
                    let found: Vec<_> = letters.list(query.clone()).try_collect().await?;
                    let ids = found.iter().filter_map(|one| one.message.as_ref().map(|message| &message.message_id));
                    let reasons = found.iter().map(|one| word(one.reason().as_str_name(), "DEAD_LETTER_REASON_"));
                    Ok(json!({"count": found.len(), "ids": ids.collect::<Vec<_>>(),
                        "reasons": reasons.collect::<Vec<_>>(),
                        "texts": found.iter().map(|one| &one.reason_text).collect::<Vec<_>>(),
                        "attempts": found.iter().map(|one| one.attempts.len()).collect::<Vec<_>>()}))
                };
                until_it_fits(ask, arguments, expected).await?
            }
            "redrive" => {
                let progress: Vec<_> = letters.redrive(query, Default::default()).try_collect().await?;
                let last = progress.last().copied().unwrap_or_default();
                json!({"redriven": last.redriven, "skipped": last.skipped})
            }
            "purge" => {
                let progress: Vec<_> = letters.purge(query).try_collect().await?;
                json!({ "purged": progress.last().map_or(0, |last| last.purged) })
            }
            "history" => {
                let found: Vec<_> = client.history(workspace).list(HistoryQuery::default()).try_collect().await?;
                let from = arguments["from"].as_str();
                let ids: Vec<_> = found
                    .into_iter()
                    .filter(|one| from.is_none_or(|from| one.from_sandbox_id == from))
                    .map(|one| one.message_id)
                    .collect();
                json!({"count": ids.len(), "ids": ids})
            }
            "set_policy" => {
                let policy = client.policies(workspace).set(arguments["policy"].to_string(), None).await?;
                json!({ "revision": policy.revision })
            }
            "approvals" | "approve" | "deny" => self.approvals(verb, arguments).await?,
            other => return Err(Failure::Test(format!("there is no verb {other}"))),
        })
    }

    async fn approvals(&self, verb: &str, arguments: &Value) -> Played {
        let approvals = self.client.approvals(self.workspace.as_str());
        if verb == "approvals" {
            let state = arguments["state"].as_str().map(|state| format!("APPROVAL_STATE_{}", state.to_uppercase()));
            let state = state.and_then(|name| ApprovalState::from_str_name(&name));
            let found: Vec<_> = approvals.list(state).try_collect().await?;
            let ids: Vec<_> = found.iter().map(|one| one.approval_id).collect();
            return Ok(json!({"count": ids.len(), "ids": ids}));
        }
        let decision = if verb == "approve" { Decision::Approve } else { Decision::Deny };
        let number = arguments["approval"].as_u64().unwrap_or_default();
        let found = approvals.decide(number, decision, text(arguments, "comment")).await?;
        Ok(json!({"state": word(found.state().as_str_name(), "APPROVAL_STATE_"), "sequence": found.sequence}))
    }
}

/// Asks again until it fits, or for as long as it may take.
async fn until_it_fits(
    mut ask: impl AsyncFnMut() -> Result<Value, Error>,
    arguments: &Value,
    expected: &Value,
) -> Result<Value, Error> {
    let (began, limit) = (now(), within(arguments));
    loop {
        let found = ask().await?;
        if difference(expected, &found, "it").is_empty() || began.elapsed() > limit {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn wanted(arguments: &Value) -> Sandbox {
    let agents = arguments["agents"].as_array().into_iter().flatten().map(|agent| Agent {
        name: text(agent, "name"),
        role: text(agent, "role"),
        capabilities: agent["capabilities"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| text(&json!({"x": one}), "x"))
            .collect(),
    });
    let number = |name: &str| arguments[name].as_u64().unwrap_or_default();
    let wire = |name: &str| ms(arguments, name).map(wire_duration);
    Sandbox {
        sandbox_id: text(arguments, "sandbox"),
        agents: agents.collect(),
        retry_policy: Some(RetryPolicy {
            max_attempts: number("max_attempts") as u32,
            initial_backoff: wire("initial_backoff_ms"),
            max_backoff: wire("max_backoff_ms"),
        }),
        inbox_limits: Some(InboxLimits { max_messages: number("max_messages"), max_bytes: 0 }),
        ..Sandbox::default()
    }
}

async fn publish_many(client: Client, workspace: String, arguments: Value) -> Played {
    let stream = client.publisher(workspace).stream(PublishStreamOptions::default());
    let mut receipts = Vec::new();
    for number in 1..=arguments["count"].as_u64().unwrap_or_default() {
        let content = json!({ "n": number }).to_string();
        let builder =
            MessageBuilder::notification(text(&arguments, "from"), to_sandbox(text(&arguments, "to")), content);
        receipts.push(stream.send(builder.content_type("application/json").build()).await?);
    }
    let receipts = join_all(receipts).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let sequences: Vec<_> = receipts.iter().map(|receipt| receipt.sequence).collect();
    let accepted = sequences.iter().filter(|sequence| **sequence > 0).count();
    Ok(json!({"accepted": accepted, "in_order": sequences.is_sorted_by(|one, next| one < next)}))
}

fn kind(name: &str) -> Result<MessageType, Failure> {
    MessageType::from_str_name(&format!("MESSAGE_TYPE_{}", name.to_uppercase()))
        .ok_or_else(|| Failure::Test(format!("there is no type {name}")))
}

fn destination(arguments: &Value) -> Destination {
    if is(arguments, "broadcast") {
        broadcast()
    } else if let Some(topic) = arguments["topic"].as_str() {
        to_topic(topic)
    } else if let Some(capability) = arguments["capability"].as_str() {
        to_capability(capability)
    } else {
        to_sandbox(text(arguments, "to"))
    }
}

fn message(arguments: &Value) -> Result<Message, Failure> {
    let metadata = arguments["metadata"].as_object().into_iter().flatten();
    let delay = ms(arguments, "delay_ms");
    #[expect(clippy::disallowed_methods, reason = "a scenario says in how long a message may be delivered")]
    let not_before = delay.map(|delay| tandem_client::wire_time(SystemTime::now() + delay));
    Ok(Message {
        from_sandbox_id: text(arguments, "from"),
        destination: Some(destination(arguments)),
        message_id: text(arguments, "id"),
        r#type: kind(arguments["type"].as_str().unwrap_or("notification"))?.into(),
        content: arguments["content"].to_string().into(),
        content_type: "application/json".to_owned(),
        priority: arguments["priority"].as_u64().map(|priority| priority as u32),
        correlation_id: text(arguments, "correlation_id"),
        requires_response: is(arguments, "requires_response"),
        ordering_key: text(arguments, "ordering_key"),
        ttl: ms(arguments, "ttl_ms").map(wire_duration),
        dead_letter_on_expiry: is(arguments, "dead_letter_on_expiry"),
        not_before,
        metadata: metadata.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect(),
        ..Message::default()
    })
}

fn receipt(receipt: &Receipt) -> Value {
    json!({"id": receipt.message_id, "sequence": receipt.sequence, "duplicate": receipt.duplicate,
        "approval_id": receipt.approval_id.unwrap_or(0)})
}

fn content(message: &Message) -> Value {
    serde_json::from_slice(&message.content).unwrap_or(Value::Null)
}

fn shown(delivery: &InboxDelivery) -> Value {
    let message = delivery.message();
    json!({"id": message.message_id, "from": message.from_sandbox_id,
        "type": word(message.r#type().as_str_name(), "MESSAGE_TYPE_"), "content": content(message),
        "priority": message.priority.unwrap_or(5), "attempt": delivery.attempt(), "sequence": message.sequence,
        "correlation_id": message.correlation_id, "metadata": message.metadata})
}
