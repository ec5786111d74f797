//! A process that campaigns, writes under its epoch as long as it leads, and goes on writing
//! under it when it leads no more. It is this test binary itself, run for one test alone, and
//! tells all that it does on standard output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hydrant_contracts::proto::under::Holder;
use hydrant_sdk::{Error, Hydrant, Leadership};
use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};

use super::history::{Event, Manner, Outcome, now};
use super::writer::{Voice, Writer};

/// The election, in the namespace of the service [`SERVICE`].
pub const ELECTION: &str = "contest";
/// The service that the candidates are.
pub const SERVICE: &str = "service/contest";

/// The variable that names the file with the fault for whoever is elected next.
const FAULT: &str = "HYDRANT_TEST_ELECTION_FAULT";

/// What every leader writes.
const SHARED: [&str; 2] = ["shared/one", "shared/two"];
/// How long a leader rests between two rounds of writes.
const REST: Duration = Duration::from_millis(4);
/// How often one that leads no more tries to write nevertheless.
const ROGUE_WRITES: u32 = 24;

/// Starts a candidate.
pub fn start(who: &str, url: &str, token: &str, fault: &Path) -> Child {
    let this = std::env::current_exe().expect("the path of this binary");
    Command::new(this)
        .args(["--exact", "election::candidate::process", "--nocapture"])
        .env("HYDRANT_URL", url)
        .env("HYDRANT_TOKEN", token)
        .env("HYDRANT_INSTANCE", who)
        .env(FAULT, fault)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

/// The candidate's process; does nothing when it is not started as one.
#[test]
fn process() {
    let Some(fault) = std::env::var_os(FAULT) else {
        return;
    };
    set_parent_process_death_signal(Some(Signal::KILL)).expect("the kernel takes it");
    let runtime = hydrant_harness::runtime();
    let candidate = Candidate::new(fault.into()).expect("the environment names a node");
    runtime.block_on(candidate.run());
}

#[derive(Clone)]
struct Candidate {
    hydrant: Hydrant,
    writer: Writer,
    fault: PathBuf,
}

impl Candidate {
    fn new(fault: PathBuf) -> Result<Self, Error> {
        let hydrant = Hydrant::from_env()?;
        let who = hydrant.config().instance.as_ref().map(ToString::to_string);
        let voice = Voice::new(who.unwrap_or_default());
        let holder = Holder::Election(ELECTION.into());
        Ok(Self {
            writer: Writer::new(&hydrant, holder, voice)?,
            hydrant,
            fault,
        })
    }

    async fn run(self) {
        loop {
            let began = now();
            match self.hydrant.campaign(ELECTION).await {
                Ok(leadership) => self.term(began, leadership).await,
                Err(error) => panic!("the node refuses a candidate: {error}"),
            }
        }
    }

    async fn term(&self, began: u64, leadership: Leadership) {
        let (epoch, at) = (leadership.epoch(), now());
        self.writer.voice.say(Event::Elected { epoch, began, at });
        self.suffer().await;
        self.lead(&leadership).await;
        self.writer.voice.say(Event::Lost { epoch, at: now() });
        tokio::spawn(self.clone().write_nevertheless(epoch));
    }

    /// Writes until a write is refused, or the SDK says that it is over. The raw rounds ask
    /// nobody: what a process has in hand when it is stopped, it sends when it goes on.
    async fn lead(&self, leadership: &Leadership) {
        let epoch = leadership.epoch();
        let own = format!("own/{epoch}");
        for round in 0_u64.. {
            for key in [SHARED[0], SHARED[1], &own] {
                let outcome = match round % 2 {
                    0 => self.writer.write_raw(epoch, key, Manner::Raw).await,
                    _ => self.write_checked(leadership, key).await,
                };
                if matches!(outcome, Outcome::Refused | Outcome::Withheld) {
                    return;
                }
            }
            if round % 16 == 0 {
                self.look(round / 16, epoch).await;
            }
            if leadership.is_lost() {
                return;
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Writes under an epoch that is over, on every key that it ever wrote.
    async fn write_nevertheless(self, epoch: u64) {
        let own = format!("own/{epoch}");
        for turn in 0..ROGUE_WRITES {
            let key = [&own, SHARED[0], SHARED[1]][turn as usize % 3];
            self.writer.write_raw(epoch, key, Manner::Rogue).await;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..80))).await;
        }
    }

    async fn write_checked(&self, leadership: &Leadership, key: &str) -> Outcome {
        let state = self.hydrant.state().under(leadership);
        let (epoch, manner) = (leadership.epoch(), Manner::Checked);
        let put = |name: String| async move { state.put(key, name).await };
        self.writer.write(epoch, key, manner, put).await
    }

    /// Reads a key that all write, and one that only an earlier leader has written.
    async fn look(&self, turn: u64, epoch: u64) {
        let earlier = format!("own/{}", fastrand::u64(1..=epoch));
        for key in [SHARED[turn as usize % 2], &earlier] {
            self.writer.read(key).await;
        }
    }

    /// The fault that waits for whoever is elected next, between Campaign's answer and the first
    /// write. It is taken by renaming its file, so that one process alone suffers it.
    async fn suffer(&self) {
        let taken = self.fault.with_extension(&self.writer.voice.who);
        if fs::rename(&self.fault, &taken).is_err() {
            return;
        }
        let signal = match fs::read_to_string(&taken).as_deref() {
            Ok("kill") => Signal::KILL,
            _ => Signal::STOP,
        };
        kill_process(getpid(), signal).expect("a process may signal itself");
        // Another thread may be the one that takes the signal; it stops all, a little later.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
