//! A user who proves by a password who he is. `sshd` asks the system for passwords, which a test has none of; so what
//! asks here is a server of our own, before OpenSSH's `sftp-server`.

use std::process::Stdio;

use russh::keys::PrivateKey;
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session};
use russh::{Channel, ChannelId};
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::process::Command;

use super::*;

const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";
const PASSWORD: &str = "correct horse, battery & staple";

/// Lets in who has the password, and passes his bytes on.
#[derive(Default)]
struct Door {
    channel: Option<Channel<Msg>>,
}

impl server::Handler for Door {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        Ok(match (user, password) {
            ("hydrant", PASSWORD) => Auth::Accept,
            _ => Auth::reject(),
        })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        assert_eq!(name, "sftp");
        session.channel_success(id)?;
        let mut channel = self.channel.take().expect("a channel").into_stream();
        let mut command = Command::new(SFTP_SERVER);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = command.kill_on_drop(true).spawn()?;
        let (output, input) = (server.stdout.take(), server.stdin.take());
        let mut pipes = tokio::io::join(output.expect("a pipe"), input.expect("a pipe"));
        tokio::spawn(async move {
            let _ = copy_bidirectional(&mut channel, &mut pipes).await;
            drop(server);
        });
        Ok(())
    }
}

/// Starts the server; gives its port and its key.
async fn start() -> (u16, String) {
    let seed = [7; 32];
    let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
    let key = PrivateKey::from(pair);
    let public = key.public_key().to_openssh().expect("a key");
    let config = Arc::new(server::Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        ..Default::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let running = server::run_stream(Arc::clone(&config), stream, Door::default()).await;
            tokio::spawn(async move { running?.await });
        }
    });
    (port, public)
}

#[tokio::test]
async fn a_user_is_let_in_by_the_password_in_a_file_and_not_by_another_one() {
    if !Path::new(SFTP_SERVER).exists() {
        return skipped(format!(
            "{SFTP_SERVER} is not here; install the system's package `openssh-sftp-server`"
        ));
    }
    let folder = tempfile::tempdir().unwrap();
    let (port, host_key) = start().await;
    let (file, files) = (folder.path().join("password"), folder.path().join("files"));
    std::fs::create_dir(&files).unwrap();
    let definition = format!(
        "kind = \"sftp\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"hydrant\"\nhost_key = \"{host_key}\"\n\
         password = {{ file = {file:?} }}\nfolder = {files:?}\n"
    );
    let world = World::new(&definition).await;
    std::fs::write(&file, "another one\n").unwrap();
    let failure = world.deliver(&with_files(1)).await.unwrap_err();
    assert_eq!(failure.trouble, Trouble::Away);
    assert!(
        failure.reason.contains("does not let this user in"),
        "{failure:?}"
    );
    assert!(names(&files).is_empty());
    // The file is read anew for each connection.
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    world.deliver(&with_files(1)).await.unwrap();
    check_whole(&files);
}
