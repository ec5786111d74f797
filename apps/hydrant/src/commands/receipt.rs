//! `hydrant receipt`: checks a receipt offline.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use hydrant_contracts::{Code, Error};
use hydrant_submissions::{CheckedHop, CheckedReceipt, check_receipt};
use serde_json::{Value, json};

use crate::failure::{Result, system};
use crate::output::{Output, Table, plain, time};

/// The largest file that is read.
const MAX_FILE: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(crate) struct ReceiptArgs {
    #[command(subcommand)]
    command: ReceiptCommand,
}

#[derive(Debug, Subcommand)]
enum ReceiptCommand {
    /// Compute each hash of a receipt again: no node is asked
    #[command(after_help = "\
Examples:
  curl -s http://127.0.0.1:8080/api/submissions/v1/submissions/ID/receipt >receipt.json
  hydrant receipt verify receipt.json")]
    Verify {
        /// The receipt, as `GET …/receipt` gave it
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

pub(crate) fn run(args: &ReceiptArgs, output: &Output) -> Result<()> {
    let ReceiptCommand::Verify { file } = &args.command;
    let text = read(file)?;
    let receipt = check_receipt(&text).map_err(|wrong| {
        let message = format!("the receipt {} is not good: {wrong}", file.display());
        Error::new(Code::DataLoss, "bad_receipt", message)
            .mend("ask for it again with `GET …/receipt`; if that one is not good either, call `hydrant audit verify`")
    })?;
    match output.json {
        true => output.json(&document(&receipt)),
        false => page(&receipt, output),
    }
}

fn read(file: &Path) -> Result<String> {
    let unreadable = |error: &std::io::Error| {
        let what = format!("cannot read the receipt {}", file.display());
        system(what, error, "name the file that has it")
    };
    let size = std::fs::metadata(file)
        .map_err(|error| unreadable(&error))?
        .len();
    if size > MAX_FILE {
        let error = std::io::Error::other("it has more than 16 MB");
        return Err(unreadable(&error));
    }
    std::fs::read_to_string(file).map_err(|error| unreadable(&error))
}

fn page(receipt: &CheckedReceipt, output: &Output) -> Result<()> {
    let last = receipt.hops.last().map_or("", |hop| &hop.hash);
    output.text(&format!(
        "submission {} of the form {}: the receipt is whole, its last hash is {last}\n\n",
        crate::output::printable(&receipt.id),
        crate::output::printable(&receipt.form)
    ))?;
    let mut table = Table::new(&["HOP", "TIME", "RECORD"]);
    for hop in &receipt.hops {
        let record = Value::from(hop.record.clone()).to_string();
        table.row([plain(&hop.kind), plain(time(hop.at_unix_ms)), plain(record)]);
    }
    output.table(&table)
}

fn document(receipt: &CheckedReceipt) -> Value {
    let hop = |hop: &CheckedHop| {
        json!({
            "kind": hop.kind,
            "time": time(hop.at_unix_ms),
            "record": hop.record,
            "hash": hop.hash,
        })
    };
    let hops: Vec<_> = receipt.hops.iter().map(hop).collect();
    json!({ "id": receipt.id, "form": receipt.form, "whole": true, "hops": hops })
}
