//! `tandem topic`.

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tandem_client::{Follow, FollowFrom, Topic, Topics};

use crate::{
    args::{TopicArgs, TopicCommand},
    exit::Failure,
    output::{Output, time},
    run::Context,
};

pub(crate) async fn run(context: &Context, args: TopicArgs) -> Result<(), Failure> {
    let topics = context.client()?.topics(context.workspace.as_str());
    let output = context.output;
    match args.command {
        TopicCommand::Create { name } => create(output, &topics, name).await,
        TopicCommand::List => {
            let topics: Vec<Topic> = topics.list().try_collect().await?;
            let rows: Vec<_> = topics.iter().map(|topic| (json(topic), row(topic))).collect();
            output.rows(&["TOPIC", "MESSAGES", "LAST SEQUENCE", "CREATED"], &rows)
        }
        TopicCommand::Delete { name } => {
            topics.delete(name.as_str()).await?;
            output.result(|| json!({ "name": name, "deleted": true }), || format!("topic {name} deleted"))
        }
        TopicCommand::Follow { sandbox, pattern, from_sequence, since } => {
            let from = match (from_sequence, since) {
                (Some(sequence), _) => FollowFrom::Sequence(sequence),
                (None, Some(time)) => FollowFrom::Time(time),
                (None, None) => FollowFrom::Next,
            };
            follow(output, &topics, sandbox, pattern, from).await
        }
        TopicCommand::Unfollow { sandbox, pattern } => {
            topics.unfollow(sandbox.as_str(), pattern.as_str()).await?;
            output.result(
                || json!({ "sandbox_id": sandbox, "pattern": pattern, "unfollowed": true }),
                || format!("{sandbox} follows {pattern} no more"),
            )
        }
        TopicCommand::Follows { sandbox } => {
            let follows = topics.follows(sandbox).await?;
            let rows: Vec<_> = follows
                .iter()
                .map(|follow| (follow_json(follow), vec![follow.pattern.clone(), follow.from_sequence.to_string()]))
                .collect();
            output.rows(&["PATTERN", "FROM SEQUENCE"], &rows)
        }
    }
}

async fn create(output: Output, topics: &Topics, name: String) -> Result<(), Failure> {
    let (topic, created) = topics.create(name).await?;
    output.result(
        || {
            let mut value = json(&topic);
            value["created"] = created.into();
            value
        },
        || format!("topic {} {}", topic.name, if created { "created" } else { "was there already" }),
    )
}

async fn follow(
    output: Output,
    topics: &Topics,
    sandbox: String,
    pattern: String,
    from: FollowFrom,
) -> Result<(), Failure> {
    let (follow, created) = topics.follow(sandbox, pattern, from).await?;
    output.result(
        || {
            let mut value = follow_json(&follow);
            value["created"] = created.into();
            value
        },
        || {
            let since = if created { "follows" } else { "already followed" };
            format!("{} {since} {} from #{} on", follow.sandbox_id, follow.pattern, follow.from_sequence)
        },
    )
}

fn follow_json(follow: &Follow) -> Value {
    json!({ "sandbox_id": follow.sandbox_id, "pattern": follow.pattern, "from_sequence": follow.from_sequence })
}

fn json(topic: &Topic) -> Value {
    json!({
        "name": topic.name, "create_time": time(topic.create_time), "message_count": topic.message_count,
        "last_sequence": topic.last_sequence,
    })
}

fn row(topic: &Topic) -> Vec<String> {
    vec![topic.name.clone(), topic.message_count.to_string(), topic.last_sequence.to_string(), time(topic.create_time)]
}
