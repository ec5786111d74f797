//! nginx and HAProxy: what the field does with a request.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::Process;
use crate::{Missing, READY, require, wait_until};

/// Where the configurations are.
const CONFIGURATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench");

/// A proxy that nobody here wrote, before one backend. It gives up after a second what a client does
/// not finish. Dropped, it is gone.
pub struct ReverseProxy {
    process: Process,
    port: Port,
    _folder: TempDir,
}

impl ReverseProxy {
    /// nginx, the system's.
    pub fn nginx(backend: SocketAddr) -> Result<Self, Missing> {
        require("nginx", "nginx")?;
        let arguments = |path: &str| vec!["-e".into(), "stderr".into(), "-c".into(), path.into()];
        Ok(Self::start(
            "nginx",
            "hostile-nginx.conf",
            backend,
            arguments,
        ))
    }

    /// HAProxy, the system's.
    pub fn haproxy(backend: SocketAddr) -> Result<Self, Missing> {
        require("haproxy", "haproxy")?;
        let arguments = |path: &str| vec!["-db".into(), "-f".into(), path.into()];
        Ok(Self::start(
            "haproxy",
            "hostile-haproxy.cfg",
            backend,
            arguments,
        ))
    }

    /// HAProxy, which passes bytes on and says first, by the PROXY protocol, whose they are. It also looks
    /// again and again whether the backend lives.
    pub fn balancer(backend: SocketAddr) -> Result<Self, Missing> {
        require("haproxy", "haproxy")?;
        let arguments = |path: &str| vec!["-db".into(), "-f".into(), path.into()];
        let configuration = "proxy-v2-haproxy.cfg";
        Ok(Self::start("haproxy", configuration, backend, arguments))
    }

    fn start(
        name: &str,
        configuration: &str,
        backend: SocketAddr,
        arguments: impl Fn(&str) -> Vec<String>,
    ) -> Self {
        let (folder, port) = (crate::folder(), Port::take());
        let text = fs::read_to_string(Path::new(CONFIGURATIONS).join(configuration));
        let text = text
            .expect("its configuration is in the repository")
            .replace("{dir}", &folder.path().display().to_string())
            .replace("{listen}", &port.number().to_string())
            .replace("{backend}", &backend.port().to_string());
        let path = folder.path().join(configuration);
        fs::write(&path, text).expect("a file");
        let program = match Path::new("/usr/sbin").join(name) {
            path if path.is_file() => path.display().to_string(),
            _ => name.to_owned(),
        };
        let arguments = arguments(&path.display().to_string());
        let proxy = Self {
            process: Process::new(name, folder.path(), &program, &arguments),
            port,
            _folder: folder,
        };
        proxy.process.start();
        let is_ready = || {
            proxy.process.check();
            TcpStream::connect(proxy.address()).is_ok()
        };
        assert!(wait_until(READY, is_ready), "{}", proxy.process.tail());
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.number()).into()
    }
}
