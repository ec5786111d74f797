//! `hydrant submissions parked`.

use clap::Args;
use hydrant_submissions::proto::{ListParkedRequest, ParkedStep};
use serde_json::{Value, json};

use super::Desk;
use crate::failure::Result;
use crate::output::{Table, plain, printable, time};

#[derive(Debug, Args)]
pub(crate) struct ParkedArgs {
    /// Only at this consumer
    #[arg(long, value_name = "NAME", default_value = "")]
    consumer: String,
    /// Only of this form
    #[arg(long, value_name = "NAME", default_value = "")]
    form: String,
    /// Only of this store
    #[arg(long, value_name = "STORE", default_value = "")]
    store: String,
    /// How many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
}

pub(crate) async fn run(desk: &Desk<'_>, args: &ParkedArgs) -> Result<()> {
    let parked = gather(desk, args).await?;
    if desk.output.json {
        let shown: Vec<_> = parked.iter().map(document).collect();
        return desk.output.json(&shown);
    }
    let columns = [
        "SUBMISSION",
        "FORM",
        "STORE",
        "CONSUMER",
        "PARKED",
        "ATTEMPTS",
        "REASON",
    ];
    let mut table = Table::new(&columns);
    for one in &parked {
        table.row([
            plain(&one.id),
            plain(&one.form),
            plain(printable(&one.store)),
            plain(&one.consumer),
            plain(time(one.parked_unix_ms)),
            plain(one.attempts),
            plain(printable(&one.reason)),
        ]);
    }
    desk.output.table_or(&table, "nothing is parked")
}

async fn gather(desk: &Desk<'_>, args: &ParkedArgs) -> Result<Vec<ParkedStep>> {
    let client = desk.deliveries();
    let mut parked = Vec::new();
    let mut after = String::new();
    while parked.len() < args.limit {
        let request = ListParkedRequest {
            consumer: args.consumer.clone(),
            form: args.form.clone(),
            store: args.store.clone(),
            limit: u32::try_from(args.limit - parked.len()).unwrap_or(u32::MAX),
            after,
            ..Default::default()
        };
        let page = client.list_parked(request).await?.into_owned();
        parked.extend(page.parked);
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    Ok(parked)
}

fn document(one: &ParkedStep) -> Value {
    json!({
        "id": one.id,
        "form": one.form,
        "store": one.store,
        "consumer": one.consumer,
        "attempts": one.attempts,
        "reason": one.reason,
        "parkedUnixMs": one.parked_unix_ms,
        "acceptedUnixMs": one.accepted_unix_ms,
    })
}
