use std::time::Duration;

/// Time since some fixed moment. It never goes back and goes on while the process is stopped and
/// while the machine sleeps, so that a process which wakes up knows at once how late it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SteadyClock(fn() -> Duration);

impl SteadyClock {
    /// The machine's own.
    pub(crate) fn system() -> Self {
        Self(since_boot)
    }

    /// One that a test moves.
    #[cfg(test)]
    pub(crate) fn from_fn(now: fn() -> Duration) -> Self {
        Self(now)
    }

    pub(crate) fn now(self) -> Duration {
        (self.0)()
    }
}

/// Linux counts the time asleep in its own clock; the portable one of the standard library may
/// leave it out.
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.max(0) as u64, now.tv_nsec.max(0) as u32)
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let clock = SteadyClock::system();
        let before = clock.now();
        while clock.now() == before {
            std::hint::spin_loop();
        }
        assert!(clock.now() > before);
    }
}
