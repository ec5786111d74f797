use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hydrant_contracts::InstanceId;
use hydrant_runtime::Duration;

use super::spec::{ServiceSpec, SupervisorConfig};
use crate::logs::RawFiles;
use crate::process::{Cgroup, Launch};

/// The variable that names the instance, by which also a process without a record is found.
pub(super) const INSTANCE: &str = "HYDRANT_INSTANCE";

/// How a process of `spec` is started as `instance`.
pub(super) fn launch(
    config: &SupervisorConfig,
    program: &Path,
    spec: &ServiceSpec,
    instance: &InstanceId,
    cgroup: Option<Cgroup>,
) -> Launch {
    let RawFiles { stdout, stderr } = config.logs.raw_files(&spec.id, instance);
    Launch {
        command: command(program, spec),
        env: environment(config, spec, instance),
        directory: spec.directory.clone(),
        limits: spec.limits,
        cgroup,
        stdout,
        stderr,
    }
}

/// A service of the SDK is started as it is, a plain web server by `hydrant run`.
fn command(program: &Path, spec: &ServiceSpec) -> Vec<String> {
    if spec.sdk {
        return spec.command.clone();
    }
    let mut command = vec![program.to_string_lossy().into_owned(), "run".into()];
    let mut option = |name: &str, value: String| command.extend([format!("--{name}"), value]);
    option("service", spec.id.name.to_string());
    option("tier", spec.id.tier.to_string());
    option("version", spec.version.to_string());
    option("stop-timeout", Duration::new(spec.stop_timeout).to_string());
    for route in &spec.routes {
        option("route", route.clone());
    }
    for path in &spec.safe_to_repeat {
        option("safe-to-repeat", path.clone());
    }
    if let Some(path) = &spec.health {
        option("health", path.clone());
    }
    if spec.keep_prefix {
        command.push("--keep-prefix".into());
    }
    command.push("--".into());
    command.extend(spec.command.iter().cloned());
    command
}

fn environment(
    config: &SupervisorConfig,
    spec: &ServiceSpec,
    instance: &InstanceId,
) -> BTreeMap<String, String> {
    let mut environment = spec.env.clone();
    environment.extend([
        ("HYDRANT_URL".into(), config.local_url.clone()),
        ("HYDRANT_PUBLIC_URL".into(), config.public_url.clone()),
        ("HYDRANT_TOKEN".into(), (config.issue_token)(&spec.id)),
        (
            "HYDRANT_GRACE".into(),
            Duration::new(config.grace).to_string(),
        ),
        (INSTANCE.into(), instance.to_string()),
    ]);
    environment
}

/// Tells what a process was started from. A process whose fingerprint is another one than its
/// service's now is out of date: another command, or a node at another address.
pub(super) fn fingerprint(config: &SupervisorConfig, spec: &ServiceSpec) -> String {
    let text =
        serde_json::to_string(&(spec, &config.local_url, &config.public_url)).unwrap_or_default();
    // FNV-1a: the same in every build, and nobody gains by a collision.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The file of the running program, also after it was replaced by a newer one.
pub fn own_program() -> PathBuf {
    let Ok(path) = std::env::current_exe() else {
        return "hydrant".into();
    };
    match path.to_string_lossy().strip_suffix(" (deleted)") {
        None => path,
        Some(replaced) if Path::new(replaced).exists() => replaced.into(),
        // The child of a fork is still this program.
        Some(_) => "/proc/self/exe".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_web_server_is_started_by_run() {
        let mut spec = ServiceSpec::new(
            "api/files".parse().unwrap(),
            "1.2.0".parse().unwrap(),
            vec!["python3".into(), "-V".into()],
        );
        spec.health = Some("/ok".into());
        spec.routes = vec!["/api/files/".into()];
        assert_eq!(
            command(Path::new("/bin/hydrant"), &spec).join(" "),
            "/bin/hydrant run --service files --tier api --version 1.2.0 --stop-timeout 10s \
             --route /api/files/ --health /ok -- python3 -V"
        );
        spec.sdk = true;
        assert_eq!(
            command(Path::new("/bin/hydrant"), &spec).join(" "),
            "python3 -V"
        );
    }
}
