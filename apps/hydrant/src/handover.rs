//! A node gives its server over to a new process of the program, for an upgrade or another configuration, and no
//! connection is refused.
//!
//! The old process starts the new one, with one end of a pair of sockets as its standard input, and sends it the
//! sockets at which it listens. Then they talk, in lines of JSON:
//!
//! 1. The new one has read its configuration: `"prepared"`. Until then nothing has changed.
//! 2. The old one leaves the services, the data folder and the engines, and routes on by what it knows: `"go"`, with
//!    the instances that are registered.
//! 3. The new one has taken them over, and accepts: `"serving"`. The old one lets what is under way end, and ends.
//!
//! When the new one ends before that, the old one starts its node again, in its own process.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hydrant_node::supervisor::own_program;
use hydrant_node::{Inheritance, Legacy};
use hydrant_router::{Gate, Sockets};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::assembly::{Former, Running};
use crate::failure::{Result, system, wrong};

/// Tells a process that another one waits for it to take its place.
const VARIABLE: &str = "HYDRANT_PREDECESSOR";
/// How long the new process may take to read its configuration.
const PREPARES_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take from then on until it serves.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// The longest line.
const MAX_LINE: u64 = 64 << 20;
/// Follows the last socket.
const NO_MORE: u8 = b'.';

/// What one process tells the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Prepared,
    Go(Legacy),
    Serving,
}

/// A line of the talk.
struct Talk(BufReader<UnixStream>);

impl Talk {
    fn new(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(BufReader::new(UnixStream::from_std(stream)?)))
    }

    async fn say(&mut self, word: &Word) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line).await
    }

    async fn hear(&mut self) -> io::Result<Word> {
        let mut line = String::new();
        (&mut self.0).take(MAX_LINE).read_line(&mut line).await?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// The process that is to take the place of this one.
pub(crate) struct Successor {
    child: Child,
    talk: Talk,
}

impl Successor {
    /// Starts the program as this process was started, and waits until it has read its configuration. Nothing has
    /// changed when that fails.
    ///
    /// # Errors
    ///
    /// Why not, for people.
    pub(crate) async fn start(running: &Running) -> std::result::Result<Self, String> {
        let (child, talk) = spawn(running).map_err(|error| format!("it cannot start: {error}"))?;
        let mut successor = Self { child, talk };
        match timeout(PREPARES_WITHIN, successor.talk.hear()).await {
            Ok(Ok(Word::Prepared)) => Ok(successor),
            _ => Err(successor.ended().await),
        }
    }

    /// Which process it is.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Lets it take the place of a node; returns when it serves.
    ///
    /// # Errors
    ///
    /// Why it does not, for people. It has ended then.
    pub(crate) async fn follow(mut self, former: &Former) -> std::result::Result<(), String> {
        match timeout(SERVES_WITHIN, self.until_it_serves(former)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(self.ended().await),
        }
    }

    async fn until_it_serves(&mut self, former: &Former) -> io::Result<()> {
        let legacy = former.node().legacy().clone();
        self.talk.say(&Word::Go(legacy)).await?;
        match self.talk.hear().await? {
            Word::Serving => Ok(()),
            Word::Prepared | Word::Go(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Ends it, and tells how it ended.
    async fn ended(mut self) -> String {
        const LAST_WORDS: Duration = Duration::from_secs(1);
        let status = match timeout(LAST_WORDS, self.child.wait()).await {
            Ok(Ok(status)) => Some(status),
            _ => {
                let _ = self.child.kill().await;
                None
            }
        };
        described(status)
    }
}

fn described(status: Option<ExitStatus>) -> String {
    match status {
        Some(status) => format!("it ended with {status}; its last words say why"),
        None => "it did not answer in time".into(),
    }
}

fn spawn(running: &Running) -> io::Result<(Child, Talk)> {
    let (ours, theirs) = StdStream::pair()?;
    let sockets = running.node().sockets()?;
    send(&ours, &sockets)?;
    let child = Command::new(own_program())
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, std::process::id().to_string())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    Ok((child, Talk::new(ours)?))
}

/// The process in whose place this one comes.
pub(crate) struct Predecessor {
    talk: Talk,
    sockets: Sockets,
}

impl Predecessor {
    /// The one that waits for this process, if there is one.
    pub(crate) fn waiting() -> Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let met = meet().map_err(|error| {
            let mend = format!("start it without the variable {VARIABLE}");
            system(
                "cannot talk to the process that is to be followed",
                &error,
                mend,
            )
        })?;
        Ok(Some(met))
    }

    /// Says that the configuration is read, and waits until the old process has left all that only one can have.
    pub(crate) async fn until_it_leaves(&mut self) -> Result<Inheritance> {
        self.talk.say(&Word::Prepared).await.map_err(gone)?;
        match self.talk.hear().await.map_err(gone)? {
            Word::Go(legacy) => Ok(Inheritance {
                sockets: std::mem::take(&mut self.sockets),
                legacy,
            }),
            word => Err(wrong(
                "no_handover",
                format!("the process that is to be followed said {word:?}"),
                "stop it, and start this one",
            )),
        }
    }

    /// Tells the old process that this one accepts. That one may have died: then nothing is left to be told.
    pub(crate) async fn serves_now(mut self) {
        let _ = self.talk.say(&Word::Serving).await;
    }
}

fn gone(error: io::Error) -> crate::failure::Failure {
    system(
        "the process that is to be followed is gone",
        &error,
        "start this one without it",
    )
}

fn meet() -> io::Result<Predecessor> {
    let input: OwnedFd = rustix::io::dup(rustix::stdio::stdin())?;
    rustix::io::fcntl_setfd(&input, rustix::io::FdFlags::CLOEXEC)?;
    // Nobody else is to read from it.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let stream = StdStream::from(input);
    let sockets = receive(&stream)?;
    Ok(Predecessor {
        talk: Talk::new(stream)?,
        sockets,
    })
}

/// Sends each socket behind the letter of its gate.
fn send(stream: &StdStream, sockets: &Sockets) -> io::Result<()> {
    for (gate, socket) in sockets.fds() {
        let sent = [socket];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&sent));
        let letter = [letter(gate)];
        sendmsg(
            stream,
            &[IoSlice::new(&letter)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
    }
    io::Write::write_all(&mut &*stream, &[NO_MORE])
}

fn receive(stream: &StdStream) -> io::Result<Sockets> {
    let mut all = Vec::new();
    loop {
        let mut letter = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut letter)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if letter[0] == NO_MORE {
            return Sockets::from_fds(all);
        }
        let gate = gate(letter[0]).ok_or(io::ErrorKind::InvalidData)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                all.extend(fds.map(|fd| (gate, fd)));
            }
        }
    }
}

/// Means the same in every version of the program.
fn letter(gate: Gate) -> u8 {
    match gate {
        Gate::Public => b'p',
        Gate::Tls => b't',
        Gate::Local => b'l',
        Gate::Peer => b'n',
    }
}

fn gate(sent: u8) -> Option<Gate> {
    let mut all = Gate::ALL.into_iter();
    all.find(|gate| letter(*gate) == sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_reach_the_other_side_with_their_gates() {
        let (ours, theirs) = StdStream::pair().unwrap();
        let bound = |gate| {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            (gate, OwnedFd::from(socket))
        };
        let sockets = Gate::ALL.map(bound);
        let sockets = Sockets::from_fds(sockets).unwrap();
        send(&ours, &sockets).unwrap();
        let received = receive(&theirs).unwrap();
        let gates = |sockets: &Sockets| sockets.fds().map(|(gate, _)| gate).collect::<Vec<_>>();
        assert_eq!(gates(&received), Gate::ALL);
        drop(ours);
        receive(&theirs).unwrap_err();
    }

    #[tokio::test]
    async fn words_are_lines_and_strange_ones_are_told() {
        let (ours, mut theirs) = StdStream::pair().unwrap();
        let mut talk = Talk::new(ours).unwrap();
        io::Write::write_all(&mut theirs, b"\"serving\"\n{\"waits\":1}\n").unwrap();
        assert!(matches!(talk.hear().await, Ok(Word::Serving)));
        talk.hear().await.unwrap_err();
        drop(theirs);
        talk.hear().await.unwrap_err();
    }
}
