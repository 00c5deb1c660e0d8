//! Messages that no worker can read, put into the queue by somebody else's client: past the service, as poison comes.

use std::collections::BTreeSet;

use lapin::{
    BasicProperties, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::runtime::{Builder, Runtime};

use crate::command::Failure;

/// The queue, by its default name.
const QUEUE: &str = "zbl.deductions";
/// The type of what the service sends itself.
const KIND: &str = "zbl.v1.DeductRequest";

/// Whoever puts it in, and what was put in.
pub(in crate::e2e) struct Poison {
    url: String,
    runtime: Runtime,
    ids: BTreeSet<String>,
}

impl Poison {
    pub(in crate::e2e) fn new(url: &str) -> Result<Self, Failure> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::Failed(error.to_string()))?;
        Ok(Self { url: url.to_owned(), runtime, ids: BTreeSet::new() })
    }

    /// The message ids of what was put in.
    pub(in crate::e2e) const fn ids(&self) -> &BTreeSet<String> {
        &self.ids
    }

    /// Puts one of each kind in, and returns when the broker has confirmed them.
    pub(in crate::e2e) fn put(&mut self) -> Result<(), Failure> {
        let number = self.ids.len();
        let another = "00000000-0000-4000-8000-000000000000";
        let body =
            |user: i64| format!(r#"{{"user_id":{user},"amount":"0.01","request_id":"{another}","strategy":""}}"#);
        let kinds = [
            ("no JSON", KIND, "\u{1}\u{2}".to_owned()),
            ("no account", KIND, body(-9)),
            ("another's", "order", body(9)),
        ];
        let (url, messages) =
            (&self.url, kinds.map(|(name, kind, body)| (format!("poison {number}, {name}"), kind, body)));
        let put = self.runtime.block_on(async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let mut kept = Vec::new();
            for (id, kind, body) in messages {
                let properties = BasicProperties::default().with_delivery_mode(2).with_type(kind.into());
                let (properties, options) =
                    (properties.with_message_id(id.as_str().into()), BasicPublishOptions::default());
                let sent = channel.basic_publish("".into(), QUEUE.into(), options, body.as_bytes(), properties).await?;
                if sent.await? == Confirmation::Ack(None) {
                    kept.push(id);
                }
            }
            connection.close(200, "OK".into()).await?;
            Ok::<_, lapin::Error>(kept)
        });
        self.ids.extend(put.map_err(|error| Failure::Failed(format!("putting poison in: {error}")))?);
        Ok(())
    }
}
