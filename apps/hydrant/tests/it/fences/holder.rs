//! A process that takes seats, writes under their epochs while it holds them, and goes on writing
//! under them when it holds them no more. It is this test binary itself, run for one test alone,
//! and tells all that it does on standard output.
//!
//! It asks no clock whether it still holds: what stops it late is the node's word, and what stops
//! its writes is the fence alone.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hydrant_contracts::proto::under::Holder;
use hydrant_contracts::proto::{
    AcquireRequest, CampaignRequest, ElectionClient, KeepAliveRequest, LockClient, acquire_event,
    campaign_event,
};
use hydrant_sdk::{Hydrant, Transport};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::election::history::{Event, Manner, Outcome, now};
use crate::election::writer::{Voice, Writer};

/// The service that the holders are.
pub const SERVICE: &str = "service/holders";

/// The seats that all compete for.
pub const SEATS: [Seat; 4] = [
    Seat::Lock("stock"),
    Seat::Lock("orders"),
    Seat::Lock("letters"),
    Seat::Election("chief"),
];

/// Says that this process is a holder.
const MARK: &str = "HYDRANT_TEST_HOLDER";
/// How long a holder may be silent, in milliseconds: as short as the node lets it be.
const TTL_MS: u32 = 500;
/// How long the node may take for its first word.
const ANSWER: Duration = Duration::from_secs(2);

/// What one of all holds at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    Lock(&'static str),
    Election(&'static str),
}

impl Seat {
    pub fn name(self) -> &'static str {
        match self {
            Self::Lock(name) | Self::Election(name) => name,
        }
    }

    fn mark(self) -> Holder {
        match self {
            Self::Lock(name) => Holder::Lock(name.into()),
            Self::Election(name) => Holder::Election(name.into()),
        }
    }
}

/// How a process names itself in what it tells of a seat.
pub fn name_at(who: &str, seat: Seat) -> String {
    format!("{who}@{}", seat.name())
}

/// Starts a holder.
pub fn start(who: &str, url: &str, token: &str) -> Child {
    let this = std::env::current_exe().expect("the path of this binary");
    Command::new(this)
        .args(["--exact", "fences::holder::process", "--nocapture"])
        .env("HYDRANT_URL", url)
        .env("HYDRANT_TOKEN", token)
        .env(MARK, who)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

/// The holder's process; does nothing when it is not started as one.
#[test]
fn process() {
    let Ok(who) = std::env::var(MARK) else {
        return;
    };
    set_parent_process_death_signal(Some(Signal::KILL)).expect("the kernel takes it");
    let runtime = hydrant_harness::runtime();
    let hydrant = Hydrant::from_env().expect("the environment names a node");
    runtime.block_on(async {
        let contenders = SEATS.map(|seat| Contender::new(&hydrant, &who, seat));
        let all: JoinSet<()> = contenders.into_iter().map(Contender::run).collect();
        all.join_all().await;
    });
}

/// One process at one seat.
#[derive(Clone)]
struct Contender {
    seat: Seat,
    writer: Writer,
    locks: LockClient<Transport>,
    elections: ElectionClient<Transport>,
}

/// What the node tells of a claim.
enum Told {
    Joined(String),
    Held(u64),
    Lost,
}

impl Contender {
    fn new(hydrant: &Hydrant, who: &str, seat: Seat) -> Self {
        let voice = Voice::new(name_at(who, seat));
        let node = "service/node";
        Self {
            seat,
            writer: Writer::new(hydrant, seat.mark(), voice).expect("the node's name"),
            locks: hydrant
                .client(node, LockClient::new)
                .expect("the node's name"),
            elections: hydrant
                .client(node, ElectionClient::new)
                .expect("the node's name"),
        }
    }

    async fn run(self) {
        loop {
            self.claim().await;
            // Somebody else's turn.
            sleep(milliseconds(5..60)).await;
        }
    }

    /// Stands in line once, and holds the seat for a while. Leaving this gives it up.
    async fn claim(&self) {
        let began = now();
        let (tell, mut told) = mpsc::channel(4);
        let contender = self.clone();
        let listen = async move {
            let _ = match contender.seat {
                Seat::Lock(name) => contender.acquire(name, &tell).await,
                Seat::Election(name) => contender.campaign(name, &tell).await,
            };
            let _ = tell.send(Told::Lost).await;
        };
        // Dropped, they end.
        let mut tasks = JoinSet::new();
        tasks.spawn(listen);
        let Ok(Some(Told::Joined(lease))) = timeout(ANSWER, told.recv()).await else {
            return;
        };
        tasks.spawn(self.clone().beat(lease));
        if let Some(Told::Held(epoch)) = told.recv().await {
            let at = now();
            self.writer.voice.say(Event::Elected { epoch, began, at });
            self.hold(epoch, &mut told).await;
            self.writer.voice.say(Event::Lost { epoch, at: now() });
            tokio::spawn(self.clone().write_nevertheless(epoch));
        }
    }

    async fn acquire(&self, name: &str, tell: &mpsc::Sender<Told>) -> Option<()> {
        let request = AcquireRequest {
            name: name.into(),
            holder: self.writer.voice.who.clone(),
            ttl_ms: TTL_MS,
            ..Default::default()
        };
        let mut stream = self.locks.acquire(request).await.ok()?;
        while let Ok(Some(event)) = stream.message().await {
            let event = event.to_owned_message().event?;
            let told = match event {
                acquire_event::Event::Joined(joined) => Told::Joined(joined.lease_id),
                acquire_event::Event::Acquired(acquired) => Told::Held(acquired.fence),
                acquire_event::Event::Lost(_) => return None,
            };
            tell.send(told).await.ok()?;
        }
        None
    }

    async fn campaign(&self, name: &str, tell: &mpsc::Sender<Told>) -> Option<()> {
        let request = CampaignRequest {
            election: name.into(),
            candidate: self.writer.voice.who.clone(),
            ttl_ms: TTL_MS,
            ..Default::default()
        };
        let mut stream = self.elections.campaign(request).await.ok()?;
        while let Ok(Some(event)) = stream.message().await {
            let event = event.to_owned_message().event?;
            let told = match event {
                campaign_event::Event::Joined(joined) => Told::Joined(joined.lease_id),
                campaign_event::Event::Elected(elected) => Told::Held(elected.epoch),
                campaign_event::Event::Lost(_) => return None,
            };
            tell.send(told).await.ok()?;
        }
        None
    }

    /// Keeps a claim alive for as long as this is polled.
    async fn beat(self, lease_id: String) {
        loop {
            sleep(Duration::from_millis(u64::from(TTL_MS) / 5)).await;
            let request = KeepAliveRequest {
                lease_id: lease_id.clone(),
                ..Default::default()
            };
            let answer = async {
                match self.seat {
                    Seat::Lock(_) => drop(self.locks.keep_alive(request).await),
                    Seat::Election(_) => drop(self.elections.keep_alive(request).await),
                }
            };
            let _ = timeout(ANSWER, answer).await;
        }
    }

    /// Writes until it has held long enough, a write is refused, or the node says that it is over.
    async fn hold(&self, epoch: u64, told: &mut mpsc::Receiver<Told>) {
        let long = fastrand::u8(..8) == 0;
        let enough = milliseconds(if long { 300..900 } else { 20..150 });
        let end = tokio::time::Instant::now() + enough;
        for round in 0_u64.. {
            for key in self.keys(epoch) {
                let outcome = self.writer.write_raw(epoch, &key, Manner::Raw).await;
                if outcome == Outcome::Refused {
                    return;
                }
            }
            if round % 8 == 0 {
                self.look(epoch).await;
            }
            tokio::select! {
                _ = told.recv() => return,
                () = tokio::time::sleep_until(end) => return,
                () = sleep(milliseconds(4..16)) => {}
            }
        }
    }

    /// Writes under an epoch that is over, on every key that it ever wrote.
    async fn write_nevertheless(self, epoch: u64) {
        for _ in 0..2 {
            for key in self.keys(epoch) {
                self.writer.write_raw(epoch, &key, Manner::Rogue).await;
                sleep(milliseconds(1..60)).await;
            }
        }
    }

    /// Two keys that all holders of the seat write, and one that no other does.
    fn keys(&self, epoch: u64) -> [String; 3] {
        let seat = self.seat.name();
        [
            format!("{seat}/one"),
            format!("{seat}/own/{epoch}"),
            format!("{seat}/two"),
        ]
    }

    /// Reads a key that all write.
    async fn look(&self, epoch: u64) {
        let [one, ..] = self.keys(epoch);
        self.writer.read(&one).await;
    }
}

fn milliseconds(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range))
}
