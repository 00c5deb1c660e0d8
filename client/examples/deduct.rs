//! Opens an account, takes money from it, repeats the same request, settles one whose outcome is unknown, and watches
//! it all on a timeline that a later run could resume.
//!
//! ```sh
//! zbl-server serve &
//! cargo run -p zbl-client --example deduct -- 127.0.0.1:50051
//! ```

use std::{error::Error, io::Write, time::Duration};

use uuid::Uuid;
use zbl_client::{Change, Client, Effect, Money, Reason, Start, TimelineItem};
use zbl_proto::v1::stream_timeline_response::Event;

/// The phases of one deduction under the default strategy: read, compute, write, commit.
const SPANS_SHOWN: usize = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50051".to_owned());
    let mut out = std::io::stdout().lock();

    // Every try has a deadline; lost answers are asked for again under the same request id.
    let client = Client::connect_lazy(&address)?.with_deadline(Duration::from_secs(2));
    let account = client.open_account(None, Money::parse("1000.00")?).await?;
    writeln!(out, "opened account {} with {}", account.user_id, account.balance)?;

    // The id is made here, once per intention, so the change can be repeated by anyone who keeps it.
    let change = Change::new(account.user_id, Money::parse("10.00")?);
    let first = client.deduct(&change).await?;
    let again = client.deduct(&change).await?;
    writeln!(out, "took 10.00: {} at version {}", first.balance, first.version)?;
    writeln!(out, "took nothing the second time: {}, replayed: {}", again.balance, again.replayed)?;

    // A refusal says what it did to the money, and that decides what to do.
    let error = client.deduct(&Change::new(account.user_id, Money::parse("5000.00")?)).await.err();
    match error.as_ref().map(|error| (error.reason(), error.effect())) {
        Some((Some(Reason::InsufficientBalance), Effect::None)) => writeln!(out, "refused, and nothing was taken")?,
        other => writeln!(out, "unexpected: {other:?}")?,
    }

    // A request whose answer never came: once resolved it has either happened or never will.
    let lost = Uuid::new_v4();
    match client.resolve(account.user_id, lost).await? {
        Some(receipt) => writeln!(out, "request {lost} took effect at version {}", receipt.version)?,
        None => writeln!(out, "request {lost} had no effect, and cannot have one any more")?,
    }

    let mut timeline = client.timeline(Some(account.user_id), Start::Retained);
    let mut shown = 0;
    while shown < SPANS_SHOWN {
        match timeline.next().await? {
            TimelineItem::Connected => writeln!(out, "watching")?,
            TimelineItem::Disconnected { error, retry_in } => writeln!(out, "lost: {error}; again in {retry_in:?}")?,
            TimelineItem::Event(event) => {
                if let Some(Event::Span(span)) = event.event {
                    writeln!(out, "{:>4}  {}  {} ns", event.sequence, span.phase().as_str_name(), span.duration_ns)?;
                    shown += 1;
                }
            }
        }
    }
    // Kept somewhere, this is where `Start::After` goes on, in this process or another.
    writeln!(out, "resume after {:?}", timeline.position())?;
    Ok(())
}
