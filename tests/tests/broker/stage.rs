//! A broker with sandboxes, ready for a test.

use futures_util::TryStreamExt as _;
use tandem_broker::Config;
use tandem_client::{Client, Error, HistoryQuery, Message, Receipt, Sandbox};
use tandem_tests::{BrokerProcess, Home, Subscriber};

/// The workspace that every new broker has.
pub(crate) const WORKSPACE: &str = "default";
/// Credit that a test does not run out of.
pub(crate) const PLENTY: (u32, u64) = (60_000, 60 << 20);

/// See the module.
pub(crate) struct Stage {
    pub(crate) home: Home,
    pub(crate) config: Config,
    pub(crate) broker: BrokerProcess,
    pub(crate) client: Client,
}

impl Stage {
    /// A fresh broker with these sandboxes.
    pub(crate) async fn with(sandboxes: &[&str]) -> Self {
        Self::set_up(sandboxes, |_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn set_up(sandboxes: &[&str], settings: impl FnOnce(&mut Config)) -> Self {
        let home = Home::new();
        let mut config = home.config();
        settings(&mut config);
        let broker = BrokerProcess::start(&home, &config).await;
        let client = broker.client();
        let stage = Self { home, config, broker, client };
        for sandbox in sandboxes {
            stage.register(sandbox).await;
        }
        stage
    }

    pub(crate) async fn register(&self, sandbox: &str) -> Sandbox {
        self.client.registry(WORKSPACE).register_with_agents(sandbox, Vec::new()).await.unwrap().0
    }

    pub(crate) async fn publish(&self, message: Message) -> Receipt {
        self.try_publish(message).await.unwrap()
    }

    pub(crate) async fn try_publish(&self, message: Message) -> Result<Receipt, Error> {
        self.client.publisher(WORKSPACE).publish(message).await
    }

    /// Publishes over one stream, in order.
    pub(crate) async fn publish_all(&self, messages: impl IntoIterator<Item = Message>) -> Vec<Receipt> {
        let stream = self.client.publisher(WORKSPACE).stream(Default::default());
        let mut pending = Vec::new();
        for message in messages {
            pending.push(stream.send(message).await.unwrap());
        }
        let mut receipts = Vec::new();
        for receipt in pending {
            receipts.push(receipt.await.unwrap());
        }
        receipts
    }

    /// A stream to an inbox, with as much credit as the test needs.
    pub(crate) async fn subscribe(&self, sandbox: &str) -> Subscriber {
        self.subscribe_with_credit(sandbox, PLENTY.0).await
    }

    /// The same with credit for so many messages.
    pub(crate) async fn subscribe_with_credit(&self, sandbox: &str, messages: u32) -> Subscriber {
        let subscriber = Subscriber::open(self.broker.channel(), WORKSPACE, sandbox).await;
        subscriber.credit(messages, PLENTY.1);
        subscriber
    }

    pub(crate) async fn pending(&self, sandbox: &str) -> u64 {
        self.client.registry(WORKSPACE).get(sandbox).await.unwrap().pending_messages
    }

    pub(crate) async fn history(&self, query: HistoryQuery) -> Vec<Message> {
        self.client.history(WORKSPACE).list(query).try_collect().await.unwrap()
    }

    /// kill -9, and a start on the same data.
    pub(crate) async fn crash_and_start(self) -> Self {
        let Self { home, config, broker, .. } = self;
        broker.kill_nine();
        Self::begin(home, config).await
    }

    /// An orderly end, and a start on the same data.
    pub(crate) async fn stop_and_start(self) -> Self {
        let Self { home, config, broker, client } = self;
        drop(client);
        let (exit, _) = broker.stop().await;
        assert_eq!(exit.code, Some(0), "{exit:#?}");
        Self::begin(home, config).await
    }

    async fn begin(home: Home, config: Config) -> Self {
        let broker = BrokerProcess::start(&home, &config).await;
        let client = broker.client();
        Self { home, config, broker, client }
    }
}

/// The text that a message carries.
pub(crate) fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.content).unwrap()
}
