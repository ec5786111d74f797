use std::path::{Path, PathBuf};
use std::str::FromStr;

use hydrant_contracts::{Code, Error};
use hydrant_ports::{EngineError, Key};
use serde_json::{Value, json};

use crate::assembly::engines::{Opened, open_store};
use crate::cli::DataCopyArgs;
use crate::config::File;
use crate::copy::{self, Comparison, Plan, Side};
use crate::data::Held;
use crate::failure::{Failure, Result, wrong};
use crate::output::{Output, Style, Table, count, plain, printable};

/// How many keys that differ are named; the rest is counted.
const NAMED: usize = 20;

/// Where a copy comes from: a data folder with the embedded engines, or the configuration file of a
/// node that has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Folder(PathBuf),
    File(PathBuf),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.strip_prefix("embedded:") {
            Some("") => Err("write the data folder behind it, as embedded:/var/lib/hydrant".into()),
            Some(folder) => Ok(Self::Folder(folder.into())),
            None => Ok(Self::File(text.into())),
        }
    }
}

impl From {
    /// The data folder.
    fn folder(&self) -> Result<PathBuf> {
        let path = match self {
            From::Folder(folder) => return Ok(folder.clone()),
            From::File(path) => path,
        };
        let file = File::load(path)?;
        if file.coordination.is_shared() || file.state.is_shared() {
            return Err(wrong(
                "not_embedded",
                format!(
                    "{} names engines that are shared, and a copy comes from the embedded ones",
                    path.display()
                ),
                "give the data folder of the node: --from embedded:DIR",
            ));
        }
        file.node.data.ok_or_else(|| {
            wrong(
                "invalid_configuration",
                format!("{}: [node] does not say `data`", path.display()),
                "give the data folder of the node: --from embedded:DIR",
            )
        })
    }
}

/// Carries what a node's embedded engines keep to the engines of a fleet.
pub(crate) async fn run(args: &DataCopyArgs, output: &Output) -> Result<()> {
    let folder = args.from.folder()?;
    let to = File::load(&args.to)?;
    if !(to.coordination.is_shared() && to.state.is_shared()) {
        return Err(wrong(
            "not_shared",
            format!("{} names no engines that a fleet shares", args.to.display()),
            "add [coordination] and [state], as docs/configuration.md says",
        ));
    }
    let _held = hold(&folder)?;
    let store = open_store(&folder)?;
    let target = match Opened::open(to.coordination, to.state, &folder).await {
        Ok(target) => target,
        Err(failure) => {
            store.close().await;
            return Err(failure);
        }
    };
    let marks = store.marks().map_err(failure)?;
    let from = Side {
        coordination: store.coordination(),
        state: store.state(),
    };
    let engines = target.engines();
    let to = Side {
        coordination: engines.coordination,
        state: engines.state,
    };
    let done = copy(args, &from, &to, &marks, output).await;
    target.close().await;
    store.close().await;
    done
}

/// Takes the data folder, so that no node starts on it meanwhile.
fn hold(folder: &Path) -> Result<Held> {
    if !folder.join("store.redb").is_file() {
        return Err(wrong(
            "no_store",
            format!(
                "{} is not the data folder of a node: it has no store.redb",
                folder.display()
            ),
            "name the folder that `hydrant up` tells as `data`",
        ));
    }
    Held::take(folder)
}

async fn copy(
    args: &DataCopyArgs,
    from: &Side,
    to: &Side,
    marks: &[(Key, u64)],
    output: &Output,
) -> Result<()> {
    let plan = copy::compare(from, to, marks).await.map_err(failure)?;
    if args.plan {
        return show(&plan, Done::Planned, output);
    }
    if plan.is_done() {
        return show(&plan, Done::Nothing, output);
    }
    let differing = plan.differing();
    if !differing.is_empty() && !args.overwrite {
        return Err(differs(&differing));
    }
    copy::carry_out(&plan, from, to).await.map_err(failure)?;
    let left = copy::compare(from, to, marks).await.map_err(failure)?;
    if !left.is_done() {
        return Err(not_the_same(&left));
    }
    show(&plan, Done::Copied, output)
}

/// What became of a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Planned,
    Nothing,
    Copied,
}

fn show(plan: &Plan, done: Done, output: &Output) -> Result<()> {
    if output.json {
        return output.json(&document(plan, done));
    }
    let mut table = Table::new(&["WHAT", "FOUND", "SAME", "NEW", "DIFFERENT"]).numbers_from(1);
    let mut row = |what: &str, found: u64, new: usize, different: usize| {
        let same = found - (new + different) as u64;
        let style = if different > 0 {
            Style::Bad
        } else {
            Style::Plain
        };
        let different = (different.to_string(), style);
        table.row([
            plain(what),
            plain(found),
            plain(same),
            plain(new),
            different,
        ]);
    };
    for (what, comparison) in [("kept keys", &plan.kept), ("state", &plan.state)] {
        let different = comparison.differing().count();
        row(
            what,
            comparison.found,
            comparison.steps.len() - different,
            different,
        );
    }
    row("marks", plan.marks_found, plan.marks.len(), 0);
    output.table(&table)?;
    let word = if done == Done::Copied {
        "replaced"
    } else {
        "differs"
    };
    for key in plan.differing().iter().take(NAMED) {
        output.text(&format!("{word}: {}\n", printable(key)))?;
    }
    output.text(&format!("\n{}\n", sentence(plan, done)))
}

fn sentence(plan: &Plan, done: Done) -> String {
    let steps = plan.kept.steps.len() + plan.state.steps.len() + plan.marks.len();
    let things = count(steps as u64, "thing", "things");
    match done {
        Done::Planned if steps == 0 => "A copy would change nothing.".into(),
        Done::Planned if plan.differing().is_empty() => format!("A copy would write {things}."),
        Done::Planned => {
            format!("A copy would write nothing before you give --overwrite, and {things} then.")
        }
        Done::Nothing => "All was there already; nothing was changed.".into(),
        Done::Copied => format!("{things} copied, read back, and found the same."),
    }
}

fn document(plan: &Plan, done: Done) -> Value {
    let kind = |comparison: &Comparison| {
        let differing: Vec<_> = comparison.differing().map(Key::as_str).collect();
        json!({
            "found": comparison.found,
            "same": comparison.same(),
            "new": comparison.steps.len() - differing.len(),
            "different": differing,
        })
    };
    json!({
        "kept": kind(&plan.kept),
        "state": kind(&plan.state),
        "marks": {
            "found": plan.marks_found,
            "same": plan.marks_found - plan.marks.len() as u64,
            "new": plan.marks.len(),
        },
        "changed": done == Done::Copied,
        "verified": done != Done::Planned,
    })
}

fn differs(keys: &[String]) -> Failure {
    let more = keys.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let named = keys
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>();
    wrong(
        "target_differs",
        format!(
            "nothing was copied: the target has something else, which may be newer, under {}{more}",
            named.join(", ")
        ),
        "to replace it by what the data folder has, give --overwrite",
    )
}

fn not_the_same(left: &Plan) -> Failure {
    let keys = left.kept.steps.iter().chain(&left.state.steps);
    let keys = keys.map(|step| step.key.as_str());
    let keys: Vec<_> = keys
        .chain(left.marks.iter().map(|(mark, _)| mark.as_str()))
        .take(NAMED)
        .collect();
    let message = format!(
        "after the copy the target does not have: {}",
        keys.join(", ")
    );
    Error::new(Code::Aborted, "not_verified", message)
        .mend("does somebody write to the target? run the copy again")
        .into()
}

fn failure(error: EngineError) -> Failure {
    Error::from(error)
        .mend("what was copied stays; run the copy again: it goes on where it stopped")
        .into()
}
