mod tables;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use hydrant_contracts::{Code, Error};
use hydrant_mobile::{ImagesCopy, ImagesFound};
use hydrant_objects::Config as ObjectsConfig;
use hydrant_ports::{EngineError, Key};
use hydrant_records::{Config, TableState};
use serde_json::{Map, Value, json};

use crate::assembly::engines::{Opened, open_store};
use crate::cli::DataCopyArgs;
use crate::config::{File, own_objects, own_records};
use crate::copy::{self, Comparison, Plan, Side};
use crate::data::Held;
use crate::failure::{Failure, Result, wrong};
use crate::output::{Output, Style, Table, count, plain, printable};
use tables::Tables;

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

/// What a node has besides its engines' store, and where.
struct Places {
    data: PathBuf,
    records: Config,
    objects: ObjectsConfig,
}

impl Places {
    /// Those of a node whose file names no others.
    fn in_folder(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            records: records_in(data),
            objects: own_objects(&data.join("mobile")),
        }
    }
}

impl From {
    fn places(&self) -> Result<Places> {
        let path = match self {
            From::Folder(folder) => return Ok(Places::in_folder(folder)),
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
        let (records, objects) = (file.storage.records(), file.storage.objects());
        let data = file.node.data.ok_or_else(|| {
            wrong(
                "invalid_configuration",
                format!("{}: [node] does not say `data`", path.display()),
                "give the data folder of the node: --from embedded:DIR",
            )
        })?;
        let own = Places::in_folder(&data);
        Ok(Places {
            records: records.unwrap_or(own.records),
            objects: objects.unwrap_or(own.objects),
            data,
        })
    }
}

fn records_in(data: &Path) -> Config {
    let url = own_records(&data.join("mobile")).to_string();
    Config::new(&url).expect("the path of a file is one")
}

/// Carries what a node's embedded engines keep to the engines of a fleet.
pub(crate) async fn run(args: &DataCopyArgs, output: &Output) -> Result<()> {
    let places = args.from.places()?;
    let folder = &places.data;
    let to = File::load(&args.to)?;
    if !(to.coordination.is_shared() && to.state.is_shared()) {
        return Err(wrong(
            "not_shared",
            format!("{} names no engines that a fleet shares", args.to.display()),
            "add [coordination] and [state], as docs/configuration.md says",
        ));
    }
    let to_records = tables::check(&places.records, to.storage.records())?;
    let to_objects = to.storage.objects();
    let _held = hold(folder)?;
    let store = open_store(folder)?;
    let target = match Opened::open(to.coordination, to.state, folder).await {
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
    let engines = Engines { from, to, marks };
    let done = with_storage(args, &places, to_records, to_objects, engines, output).await;
    target.close().await;
    store.close().await;
    done
}

async fn with_storage(
    args: &DataCopyArgs,
    places: &Places,
    to_records: Option<Config>,
    to_objects: Option<ObjectsConfig>,
    engines: Engines,
    output: &Output,
) -> Result<()> {
    let has_images = has_images(&places.objects);
    let leaves_images = has_images && to_objects.is_none();
    let images = to_objects.filter(|_| has_images);
    let images = images.map(|to| ImagesCopy::open(&places.objects, &to));
    let images = images.transpose()?;
    let tables = match to_records {
        Some(to) => Tables::open(places.records.clone(), to, &places.data).await?,
        None => None,
    };
    let job = Job {
        engines,
        tables,
        images,
        leaves_images,
        leaves_submissions: places.data.join("submissions").is_dir(),
    };
    let done = job.run(args, output).await;
    if let Some(tables) = job.tables {
        tables.close().await;
    }
    done
}

/// A folder that was never made has none.
fn has_images(objects: &ObjectsConfig) -> bool {
    objects.folder().is_none_or(|folder| folder.is_dir())
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

/// The engines of both sides, and the marks of the source.
struct Engines {
    from: Side,
    to: Side,
    marks: Vec<(Key, u64)>,
}

/// What a copy works on.
struct Job {
    engines: Engines,
    tables: Option<Tables>,
    images: Option<ImagesCopy>,
    /// Whether there are images, and the target has no place for them.
    leaves_images: bool,
    /// Whether there are submissions.
    leaves_submissions: bool,
}

/// What was found on comparing.
struct Found {
    plan: Plan,
    tables: Vec<TableState>,
    /// `None` where there are none, or the target has no place for them.
    images: Option<ImagesFound>,
    leaves_images: bool,
    leaves_submissions: bool,
}

impl Job {
    async fn run(&self, args: &DataCopyArgs, output: &Output) -> Result<()> {
        let found = self.compare().await?;
        if args.plan {
            return show(&found, Done::Planned, output);
        }
        if found.is_done() {
            return show(&found, Done::Nothing, output);
        }
        let differing = found.differing();
        if !differing.is_empty() && !args.overwrite {
            return Err(differs(&differing));
        }
        // First what documents refer to, then these.
        if let (Some(images), Some(found)) = (&self.images, &found.images) {
            images.carry_out(found).await?;
        }
        let Engines { from, to, .. } = &self.engines;
        let carried = copy::carry_out(&found.plan, from, to).await;
        carried.map_err(failure)?;
        if let Some(tables) = &self.tables {
            tables.carry_out(&found.tables).await?;
        }
        let left = self.compare().await?;
        if !left.is_done() {
            return Err(not_the_same(&left));
        }
        show(&found, Done::Copied, output)
    }

    async fn compare(&self) -> Result<Found> {
        let Engines { from, to, marks } = &self.engines;
        let plan = copy::compare(from, to, marks).await;
        let tables = match &self.tables {
            Some(tables) => tables.compare().await?,
            None => Vec::new(),
        };
        let images = match &self.images {
            Some(images) => Some(images.compare().await?),
            None => None,
        };
        Ok(Found {
            plan: plan.map_err(failure)?,
            tables,
            images,
            leaves_images: self.leaves_images,
            leaves_submissions: self.leaves_submissions,
        })
    }
}

impl Found {
    fn is_done(&self) -> bool {
        let images = self.images.as_ref();
        self.plan.is_done()
            && self.tables.iter().all(|table| table.same)
            && images.is_none_or(ImagesFound::is_done)
    }

    /// What the target has otherwise.
    fn differing(&self) -> Vec<String> {
        let tables = self
            .tables
            .iter()
            .filter(|table| tables::is_different(table));
        let mut all = self.plan.differing();
        all.extend(tables.map(tables::name));
        let images = self.images.iter().flat_map(|images| &images.different);
        all.extend(images.map(image));
        all
    }

    /// How many keys, marks, rows and images a copy writes.
    fn steps(&self) -> u64 {
        let Plan {
            kept, state, marks, ..
        } = &self.plan;
        let keys = kept.steps.len() + state.steps.len() + marks.len();
        let tables = self.tables.iter().filter(|table| !table.same);
        let images = self.images.iter();
        let images = images.map(|images| images.new.len() + images.different.len());
        (keys + images.sum::<usize>()) as u64 + tables.map(|table| table.found).sum::<u64>()
    }
}

/// How an image is named among keys.
fn image(name: &String) -> String {
    format!("image {name}")
}

/// What became of a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Planned,
    Nothing,
    Copied,
}

fn show(found: &Found, done: Done, output: &Output) -> Result<()> {
    if output.json {
        return output.json(&document(found, done));
    }
    let plan = &found.plan;
    let mut table = Table::new(&["WHAT", "FOUND", "SAME", "NEW", "DIFFERENT"]).numbers_from(1);
    let mut row = |what: &str, found: u64, new: u64, different: u64| {
        let same = found - (new + different);
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
        let new = comparison.steps.len() - different;
        row(what, comparison.found, new as u64, different as u64);
    }
    row("marks", plan.marks_found, plan.marks.len() as u64, 0);
    for table in &found.tables {
        let [new, different] = rows_of(table);
        row(&table.name, table.found, new, different);
    }
    if let Some(images) = &found.images {
        let [new, different] = [&images.new, &images.different].map(|names| names.len() as u64);
        row("images", images.found, new, different);
    }
    output.table(&table)?;
    let word = if done == Done::Copied {
        "replaced"
    } else {
        "differs"
    };
    for key in found.differing().iter().take(NAMED) {
        output.text(&format!("{word}: {}\n", printable(key)))?;
    }
    if found.leaves_images {
        output
            .text("\nImages are left out: the target's file has no [objects] to keep them in.\n")?;
    }
    if found.leaves_submissions {
        output.text(
            "\nSubmissions are left where they are: this command does not carry them yet. Let what is \
             open be delivered before this node is given up.\n",
        )?;
    }
    output.text(&format!("\n{}\n", sentence(found, done)))
}

/// How many rows of a table are new at the target, and how many stand against others there.
fn rows_of(table: &TableState) -> [u64; 2] {
    match table {
        table if table.same => [0, 0],
        table if table.new => [table.found, 0],
        table => [0, table.found],
    }
}

fn sentence(found: &Found, done: Done) -> String {
    let things = count(found.steps(), "thing", "things");
    match done {
        Done::Planned if found.is_done() => "A copy would change nothing.".into(),
        Done::Planned if found.differing().is_empty() => format!("A copy would write {things}."),
        Done::Planned => {
            format!("A copy would write nothing before you give --overwrite, and {things} then.")
        }
        Done::Nothing => "All was there already; nothing was changed.".into(),
        Done::Copied => format!("{things} copied, read back, and found the same."),
    }
}

fn document(found: &Found, done: Done) -> Value {
    let plan = &found.plan;
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
        "tables": found.tables.iter().map(table).collect::<Map<_, _>>(),
        "images": found.images.as_ref().map(images),
        "changed": done == Done::Copied,
        "verified": done != Done::Planned,
    })
}

fn images(images: &ImagesFound) -> Value {
    let same = images.found - (images.new.len() + images.different.len()) as u64;
    json!({
        "found": images.found,
        "same": same,
        "new": images.new.len(),
        "different": images.different,
    })
}

fn table(table: &TableState) -> (String, Value) {
    let [new, different] = rows_of(table);
    let same = table.found - new - different;
    let rows = json!({ "found": table.found, "same": same, "new": new, "different": different });
    (table.name.clone(), rows)
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

fn not_the_same(left: &Found) -> Failure {
    let images = left.images.iter();
    let images = images.flat_map(|images| images.new.iter().chain(&images.different));
    let images = images.map(image).collect::<Vec<_>>();
    let (tables, left) = (&left.tables, &left.plan);
    let tables = tables.iter().filter(|table| !table.same);
    let tables = tables.map(tables::name).collect::<Vec<_>>();
    let keys = left.kept.steps.iter().chain(&left.state.steps);
    let keys = keys.map(|step| step.key.as_str());
    let keys: Vec<_> = keys
        .chain(left.marks.iter().map(|(mark, _)| mark.as_str()))
        .chain(tables.iter().chain(&images).map(String::as_str))
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
