use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::process::Command;

use super::cgroup::Cgroup;

/// What a process may use; `None` leaves what the node itself has.
///
/// With control groups, which need Linux, cgroup v2 and a folder that the node may write in, the
/// memory and the CPU are of the process and all that it starts together. Without, the limit of
/// the memory is the kernel's per process, on writable private memory (`RLIMIT_DATA`; elsewhere
/// than Linux on address space, which a runtime with a big reservation does not bear), and that
/// of the CPU is not enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Descriptors open at once, per process.
    pub open_files: Option<u64>,
    /// Cores, as 0.5 or 2.
    pub cpu: Option<f64>,
}

#[cfg(target_os = "linux")]
const MEMORY: Resource = Resource::Data;
#[cfg(not(target_os = "linux"))]
const MEMORY: Resource = Resource::As;

/// Sets the limits in the child, before its program begins.
pub(super) fn apply(command: &mut Command, limits: Limits, cgroup: Option<Cgroup>) {
    let memory = limits.memory.filter(|_| cgroup.is_none());
    let in_child = move || {
        if let Some(cgroup) = &cgroup {
            cgroup.join()?;
        }
        if let Some(files) = limits.open_files {
            lower(Resource::Nofile, files)?;
        }
        if let Some(bytes) = memory {
            lower(MEMORY, bytes)?;
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, where only what a signal handler may do is
    // sound: it makes plain system calls, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(in_child) };
}

fn lower(resource: Resource, to: u64) -> std::io::Result<()> {
    // More than the node's own hard limit is not ours to give.
    let to = getrlimit(resource)
        .maximum
        .map_or(to, |maximum| to.min(maximum));
    let limit = Rlimit {
        current: Some(to),
        maximum: Some(to),
    };
    Ok(setrlimit(resource, limit)?)
}
