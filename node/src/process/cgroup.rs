use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::Limits;

/// Where the unified hierarchy is mounted: alone, or beside the older ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The period over which the kernel counts the use of the CPU, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// The folder of control groups in which the node makes one for each limited process.
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: PathBuf,
}

/// The control group of one process.
#[derive(Debug)]
pub struct Cgroup {
    members: File,
}

impl Cgroups {
    /// Prepares the node's own group to hold others. Fails where there is no cgroup v2 with
    /// memory and CPU, or where it was not handed to the node's user alone.
    pub fn prepare() -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let path = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .ok_or_else(|| io::Error::other("the kernel has no cgroup v2"))?;
        let root = MOUNTS
            .iter()
            .map(|mount| Path::new(mount).join(path))
            .find(|root| root.join("cgroup.controllers").exists())
            .ok_or_else(|| io::Error::other("cgroup v2 is not mounted"))?;
        Self::prepare_in(root)
    }

    fn prepare_in(root: PathBuf) -> io::Result<Self> {
        let available = fs::read_to_string(root.join("cgroup.controllers"))?;
        for controller in ["memory", "cpu"] {
            if !available.split_whitespace().any(|name| name == controller) {
                let missing = format!("cgroup v2 has no controller `{controller}` here");
                return Err(io::Error::other(missing));
            }
        }
        // A group that gives controllers to others must have no process itself.
        let node = root.join("hydrant-node");
        create(&node)?;
        write(&node.join("cgroup.procs"), &std::process::id().to_string())?;
        if let Err(error) = write(&root.join("cgroup.subtree_control"), "+memory +cpu") {
            let _ = write(&root.join("cgroup.procs"), &std::process::id().to_string());
            let _ = fs::remove_dir(&node);
            return Err(error);
        }
        Ok(Self { root })
    }

    /// Makes the group of an instance.
    pub fn limit(&self, instance: &str, limits: &Limits) -> io::Result<Cgroup> {
        let group = self.root.join(instance);
        create(&group)?;
        if let Some(bytes) = limits.memory {
            write(&group.join("memory.max"), &bytes.to_string())?;
        }
        if let Some(cores) = limits.cpu {
            let quota = (cores * CPU_PERIOD as f64).max(1000.0) as u64;
            write(&group.join("cpu.max"), &format!("{quota} {CPU_PERIOD}"))?;
        }
        let members = OpenOptions::new()
            .append(true)
            .open(group.join("cgroup.procs"))?;
        Ok(Cgroup { members })
    }

    /// Removes the group of an instance that has ended.
    pub fn remove(&self, instance: &str) {
        // Not ours to insist: it may have had none, or a process left it running.
        let _ = fs::remove_dir(self.root.join(instance));
    }
}

impl Cgroup {
    /// Moves the calling process in. Only a system call: also sound between fork and exec.
    pub(super) fn join(&self) -> io::Result<()> {
        rustix::io::write(&self.members, b"0")?;
        Ok(())
    }
}

fn create(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    fs::write(file, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain folder in place of the kernel's: what is written can be read back.
    fn hierarchy(controllers: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
        folder
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let folder = hierarchy("cpuset cpu io memory pids\n");
        let cgroups = Cgroups::prepare_in(folder.path().into()).unwrap();
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(
            read("hydrant-node/cgroup.procs"),
            std::process::id().to_string()
        );
        assert_eq!(read("cgroup.subtree_control"), "+memory +cpu");

        let limits = Limits {
            memory: Some(64 << 20),
            open_files: None,
            cpu: Some(0.5),
        };
        create(&folder.path().join("a-1")).unwrap();
        fs::write(folder.path().join("a-1/cgroup.procs"), "").unwrap();
        let group = cgroups.limit("a-1", &limits).unwrap();
        group.join().unwrap();
        assert_eq!(read("a-1/memory.max"), "67108864");
        assert_eq!(read("a-1/cpu.max"), "50000 100000");
        assert_eq!(read("a-1/cgroup.procs"), "0");
    }

    #[test]
    fn a_missing_controller_is_named() {
        let folder = hierarchy("memory pids");
        let error = Cgroups::prepare_in(folder.path().into()).unwrap_err();
        assert_eq!(error.to_string(), "cgroup v2 has no controller `cpu` here");
    }
}
