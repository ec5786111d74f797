//! OpenSSH's server of SFTP, for the user that the tests run as.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::port::Port;
use crate::process::{Process, kill};
use crate::{Missing, READY, require, wait_until};

/// A server that runs. Dropped, it and its files are gone.
pub struct Sshd {
    process: Process,
    port: Port,
    folder: TempDir,
}

impl Sshd {
    /// Starts a server with a key of its own, which lets the current user in by [`key`](Self::key).
    ///
    /// # Errors
    ///
    /// If the programs are not here.
    pub fn start() -> Result<Self, Missing> {
        require("sshd", "openssh-server")?;
        require("ssh-keygen", "openssh-client")?;
        let folder = crate::folder();
        for name in ["host", "user", "other"] {
            make_key(&folder.path().join(name));
        }
        let keys = folder.path().join("authorized_keys");
        fs::copy(folder.path().join("user.pub"), keys).expect("a file for the keys");
        fs::create_dir(folder.path().join("files")).expect("a folder for the files");
        // Where the server runs as root it wants this folder, which a service manager makes elsewhere.
        let _ = fs::create_dir("/run/sshd");
        let port = Port::take();
        let config = folder.path().join("sshd.conf");
        fs::write(&config, lines(folder.path(), &port)).expect("the configuration can be written");
        let arguments = ["-D", "-e", "-f", &config.display().to_string()].map(str::to_owned);
        let process = Process::new("sshd", folder.path(), &program(), &arguments);
        let sshd = Self {
            process,
            port,
            folder,
        };
        sshd.restart();
        Ok(sshd)
    }

    /// Starts it again, at the same address, and waits until it answers.
    pub fn restart(&self) {
        self.process.start();
        let is_ready = || {
            self.process.check();
            std::net::TcpStream::connect(self.address()).is_ok()
        };
        assert!(wait_until(READY, is_ready), "{}", self.process.tail());
    }

    /// Takes no new connections; those that are there live on.
    pub fn stop(&self) {
        self.process.kill();
    }

    /// Takes no new connections, and ends those that are there.
    pub fn stop_all(&self) {
        let connections = self.process.children();
        self.stop();
        // What a connection has started ends with it.
        for pid in connections {
            kill(pid, Signal::KILL);
        }
    }

    /// How many connections are there.
    pub fn connections(&self) -> usize {
        self.process.children().len()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.number()).into()
    }

    /// The user who is let in.
    pub fn user(&self) -> String {
        said(Command::new("id").arg("-un"))
    }

    /// The file with the user's private key.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("user")
    }

    /// The file with a private key that is not let in.
    pub fn other_key(&self) -> PathBuf {
        self.folder.path().join("other")
    }

    /// The server's key, as its own file has it.
    pub fn host_key(&self) -> String {
        read(&self.folder.path().join("host.pub"))
    }

    /// The fingerprint of the server's key, as `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        let path = self.folder.path().join("host.pub");
        let shown = said(Command::new("ssh-keygen").arg("-lf").arg(path));
        shown.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// A folder for files.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn lines(folder: &Path, port: &Port) -> String {
    let (number, folder) = (port.number(), folder.display());
    format!(
        "ListenAddress 127.0.0.1:{number}\nHostKey {folder}/host\nPidFile none\n\
         AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
         MaxStartups 100\nMaxSessions 100\nSubsystem sftp internal-sftp\n"
    )
}

/// It starts itself anew for each connection, and wants to know where it is for that.
fn program() -> String {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"];
    let paths = folders.map(|folder| format!("{folder}/sshd"));
    let found = paths.into_iter().find(|path| Path::new(path).is_file());
    found.unwrap_or_else(|| "sshd".into())
}

fn make_key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path);
    said(&mut command);
}

fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.expect("the program is here");
    assert!(output.status.success(), "{command:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn read(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("the file is there");
    text.trim().to_owned()
}
