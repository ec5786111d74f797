use hydrant_contracts::InstanceId;

use super::launch::INSTANCE;
use super::record::{Record, Records};
use crate::process::{Process, Tagged, with_variable};

/// What earlier nodes left: the processes that live, and the records of those that ended.
pub(super) struct Found {
    pub(super) living: Vec<(Record, Process)>,
    pub(super) ended: Vec<Record>,
}

/// Looks for every process that a record tells of.
///
/// A record without a process is the intent of a node that died while it started one: the
/// process, if it came to be, is known by the instance in its environment. What a process that
/// has ended left behind is ended too.
pub(super) fn find(records: &Records) -> std::io::Result<Found> {
    let records = records.load()?;
    let tagged = if records.is_empty() {
        Vec::new()
    } else {
        with_variable(INSTANCE)
    };
    let mut found = Found {
        living: Vec::new(),
        ended: Vec::new(),
    };
    for record in records {
        match living(&record, &tagged) {
            Some(process) => found.living.push((record, process)),
            None => {
                of(&record, &tagged).for_each(Tagged::kill);
                found.ended.push(record);
            }
        }
    }
    Ok(found)
}

fn living(record: &Record, tagged: &[Tagged]) -> Option<Process> {
    let id = match &record.process {
        Some(id) => id.clone(),
        None => of(record, tagged).find(|tagged| tagged.leader)?.id.clone(),
    };
    Process::adopt(id)
}

fn of<'a>(record: &'a Record, tagged: &'a [Tagged]) -> impl Iterator<Item = &'a Tagged> {
    tagged
        .iter()
        .filter(|tagged| tagged.value == record.instance.as_str())
}

/// Ends at once whatever carries the instance in its environment: what a process that was killed
/// could not end itself, also outside of its group. Linux only, as [`with_variable`].
pub(super) fn sweep(instance: &InstanceId) {
    with_variable(INSTANCE)
        .iter()
        .filter(|tagged| tagged.value == instance.as_str())
        .for_each(Tagged::kill);
}
