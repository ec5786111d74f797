//! Which faults a contest suffers.

use super::contest::Contest;

/// What happens to whoever leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP until another one leads, then SIGCONT.
    Stop,
    /// SIGSTOP for a while around the time to live; it may stay the leader.
    Pause,
    /// The next one elected gets SIGKILL between Campaign's answer and its first write.
    KillElected,
    /// The next one elected gets SIGSTOP there, until another one leads.
    StopElected,
    /// It is stopped; its successor, too, between Campaign's answer and its first write; and it
    /// goes on while the successor has not written yet.
    ResumeIntoGap,
    /// SIGKILL while another candidate is stopped, which may be given the seat all the same.
    KillBesideStopped,
    /// SIGKILL of the node, and a new one.
    KillNode,
    /// It is stopped, the node killed and started again, and it goes on when another one leads.
    StopAndKillNode,
}

/// How often each happens in the short form and in the long one.
const COUNTS: [(Fault, usize, usize); 9] = [
    (Fault::Kill, 10, 50),
    (Fault::Stop, 3, 44),
    (Fault::Pause, 2, 14),
    (Fault::KillElected, 4, 24),
    (Fault::StopElected, 1, 24),
    (Fault::ResumeIntoGap, 2, 16),
    (Fault::KillBesideStopped, 1, 16),
    (Fault::KillNode, 1, 8),
    (Fault::StopAndKillNode, 1, 4),
];

/// The faults of one run: 25, or 200 when it is long.
pub fn schedule(long: bool, random: &mut fastrand::Rng) -> Vec<Fault> {
    let times = |short: usize, many: usize| if long { many } else { short };
    let mut faults: Vec<Fault> = COUNTS
        .iter()
        .flat_map(|(fault, short, many)| std::iter::repeat_n(*fault, times(*short, *many)))
        .collect();
    random.shuffle(&mut faults);
    faults
}

impl Contest {
    /// Suffers one fault, and waits until somebody leads again.
    pub fn suffer(&mut self, fault: Fault) {
        let leader = self.someone_leads();
        match fault {
            Fault::Kill => {
                let killed = self.kill(&leader);
                self.successor_of(leader.epoch, "SIGKILL", killed);
            }
            Fault::Stop => {
                let stopped = self.stop(&leader.who);
                self.successor_of(leader.epoch, "SIGSTOP", stopped);
                self.listen_for_ms(0..400);
                self.resume(&leader.who);
            }
            Fault::Pause => {
                self.stop(&leader.who);
                self.listen_for_ms(100..3500);
                self.resume(&leader.who);
                self.listen_for_ms(100..300);
            }
            Fault::KillElected => {
                self.arm("kill");
                let killed = self.kill(&leader);
                let elected = self.struck(leader.epoch, "SIGKILL", killed);
                self.bury(&elected);
                self.successor_of(elected.epoch, "SIGKILL before the first write", elected.at);
            }
            Fault::StopElected => {
                self.arm("stop");
                let killed = self.kill(&leader);
                let elected = self.struck(leader.epoch, "SIGKILL", killed);
                self.wait_stopped(&elected.who);
                self.successor_of(elected.epoch, "SIGSTOP before the first write", elected.at);
                self.listen_for_ms(0..400);
                self.resume(&elected.who);
            }
            Fault::ResumeIntoGap => {
                self.arm("stop");
                let stopped = self.stop(&leader.who);
                let elected = self.struck(leader.epoch, "SIGSTOP", stopped);
                self.wait_stopped(&elected.who);
                self.resume(&leader.who);
                self.listen_for_ms(100..600);
                self.resume(&elected.who);
            }
            Fault::KillBesideStopped => {
                let other = self.someone_beside(&leader);
                self.stop(&other);
                let killed = self.kill(&leader);
                self.successor_of(leader.epoch, "SIGKILL beside a stopped one", killed);
                self.listen_for_ms(0..400);
                self.resume(&other);
            }
            Fault::KillNode => {
                let killed = self.kill_node();
                self.successor_of(leader.epoch, "SIGKILL of the node", killed);
            }
            Fault::StopAndKillNode => {
                let stopped = self.stop(&leader.who);
                self.kill_node();
                self.successor_of(leader.epoch, "SIGSTOP and SIGKILL of the node", stopped);
                self.resume(&leader.who);
                self.listen_for_ms(100..300);
            }
        }
    }
}
