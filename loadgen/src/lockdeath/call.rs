//! A deduction under way, whose end can be waited for again and again; and what its caller knows of it in the end.

use tokio::sync::watch;
use tokio::time::Instant;
use zbl_client::{Change, Client, Effect, Error, Receipt};

use crate::attack::patiently;
use crate::history::{Acknowledgement, Operation, Outcome};

/// A deduction that was sent.
pub(super) struct Call {
    change: Change,
    end: watch::Receiver<Option<Result<Receipt, Error>>>,
}

impl Call {
    pub(super) fn begin(client: &Client, change: Change) -> Self {
        let (told, end) = watch::channel(None);
        let (client, sent) = (client.clone(), change.clone());
        tokio::spawn(async move {
            let answer = client.deduct(&sent).await;
            told.send_replace(Some(answer));
        });
        Self { change, end }
    }

    /// What it was answered, as soon as it is.
    pub(super) async fn ended(&mut self) -> Result<Receipt, Error> {
        let lost = || Err(Error::lost("the call was lost"));
        self.end.wait_for(Option::is_some).await.map_or_else(|_| lost(), |end| end.clone().unwrap_or_else(lost))
    }

    /// What its caller knows. One that was told that nothing happened asks again under the same id, for a while, as any
    /// caller would who is not refused for good; whether it happened in spite of an unknown end is for settling to say.
    pub(super) async fn settled(&self, clients: &[Client], until: Instant) -> Operation {
        let ended = self.end.borrow().clone();
        let answer = match ended {
            Some(Err(error)) if error.effect() == Effect::None => {
                let again = |client: Client| async move { client.deduct(&self.change).await };
                patiently(clients, until, again).await
            }
            Some(answer) => answer,
            None => Err(Error::lost("no answer came")),
        };
        let outcome = match answer {
            Ok(receipt) => Outcome::Acknowledged(Acknowledgement::of(&receipt)),
            Err(error) => match (error.effect(), error.reason()) {
                (Effect::None, Some(reason)) => Outcome::Failed { reason: reason.as_str() },
                _ => Outcome::Unknown,
            },
        };
        // The amount is a constant of this lab and has an opposite.
        let delta = self.change.amount.checked_neg().unwrap_or_default();
        Operation { request_id: self.change.request_id, delta, outcome }
    }
}
