//! What operators look at: who leads, what is published, how every process and every source does,
//! and what somebody has to look at.

mod desk;
mod report;
mod status;
mod watch;

pub(crate) use desk::{OperationsDesk, serve};
pub(crate) use report::{OwnReports, REPORTS, Reception, Report, Reporter};
pub(crate) use watch::Watch;
