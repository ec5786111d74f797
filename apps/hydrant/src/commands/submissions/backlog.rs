//! `hydrant submissions backlog`.

use hydrant_runtime::Clock;
use hydrant_submissions::proto::{BacklogRequest, ConsumerBacklog};
use serde_json::{Value, json};

use super::Desk;
use crate::failure::Result;
use crate::output::{Style, Table, age, plain};

pub(crate) async fn run(desk: &Desk<'_>) -> Result<()> {
    let backlog = desk.deliveries().backlog(BacklogRequest::default()).await?;
    let consumers = backlog.into_owned().consumers;
    if desk.output.json {
        let shown: Vec<_> = consumers.iter().map(document).collect();
        return desk.output.json(&shown);
    }
    let now = Clock::system().unix_ms();
    let columns = [
        "CONSUMER",
        "OLDEST",
        "READY",
        "UNDER WAY",
        "WAITING",
        "PARKED",
    ];
    let mut table = Table::new(&columns).numbers_from(2);
    for one in &consumers {
        let parked = match one.parked {
            0 => plain(0),
            parked => (parked.to_string(), Style::Bad),
        };
        table.row([
            plain(&one.consumer),
            plain(
                one.oldest_unix_ms
                    .map_or_else(String::new, |at| age(now - at)),
            ),
            plain(one.ready),
            plain(one.leased),
            plain(one.waiting),
            parked,
        ]);
    }
    desk.output
        .table_or(&table, "nothing waits: whatever was submitted is delivered")
}

fn document(one: &ConsumerBacklog) -> Value {
    json!({
        "consumer": one.consumer,
        "ready": one.ready,
        "leased": one.leased,
        "waiting": one.waiting,
        "parked": one.parked,
        "oldestUnixMs": one.oldest_unix_ms,
    })
}
