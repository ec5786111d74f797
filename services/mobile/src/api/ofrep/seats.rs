//! How many streams are open: of the whole process, and of each who asks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::gate::Admitted;
use crate::settings::Streams;

/// The seats of all streams. Asked when a stream opens or ends, never in between.
#[derive(Clone, Default)]
pub(crate) struct Seats(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<Whose, usize>,
}

/// Whose seats are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    Key(String),
    Address(Option<IpAddr>),
}

/// The seat of one stream; free again when it is dropped.
pub(super) struct Seat {
    seats: Seats,
    whose: Whose,
}

/// There is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// This process has as many streams as it holds.
    Process,
    /// Who asks has as many as one may have.
    Own,
}

impl Seats {
    pub(super) fn take(&self, whose: Whose, most: &Streams) -> Result<Seat, Full> {
        let most_of_one = match whose {
            Whose::Key(_) => most.most_per_key,
            Whose::Address(_) => most.most_per_address,
        };
        let mut taken = self.taken();
        let own = taken.by.get(&whose).copied().unwrap_or_default();
        if taken.all >= most.most {
            return Err(Full::Process);
        }
        if own >= most_of_one {
            return Err(Full::Own);
        }
        taken.all += 1;
        taken.by.insert(whose.clone(), own + 1);
        Ok(Seat {
            seats: self.clone(),
            whose,
        })
    }

    /// How many streams are open.
    pub(super) fn count(&self) -> usize {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// How many streams are open beside this one, and this one.
    pub(super) fn count(&self) -> usize {
        self.seats.count()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.whose) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.whose);
            }
        }
    }
}

impl Whose {
    pub(super) fn of(admitted: &Admitted) -> Self {
        match admitted.caller.key() {
            Some(key) => Self::Key(key.name.clone()),
            None => Self::Address(admitted.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(most: usize, most_of_one: usize) -> Streams {
        Streams {
            most,
            most_per_key: most_of_one,
            most_per_address: most_of_one,
            ..Streams::default()
        }
    }

    #[test]
    fn nobody_takes_all_and_a_seat_is_free_again() {
        let (seats, limits) = (Seats::default(), limits(3, 2));
        let take = |name: &str| seats.take(Whose::Key(name.into()), &limits);
        let first = take("a").ok();
        let _second = take("a").ok().unwrap();
        assert_eq!(take("a").err(), Some(Full::Own));
        let _third = take("b").ok().unwrap();
        assert_eq!(take("b").err(), Some(Full::Process));
        drop(first);
        assert_eq!(seats.count(), 2);
        assert!(take("a").is_ok());
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whatever_comes_and_goes(
            steps in proptest::collection::vec((0_u8..5, any::<bool>()), 0..200),
        ) {
            let (seats, limits) = (Seats::default(), limits(6, 2));
            let mut held: Vec<(u8, Seat)> = Vec::new();
            for (who, comes) in steps {
                if comes {
                    held.extend(seats.take(Whose::Key(who.to_string()), &limits).ok().map(|seat| (who, seat)));
                } else if let Some(at) = held.iter().position(|(other, _)| *other == who) {
                    held.remove(at);
                }
                prop_assert_eq!(seats.count(), held.len());
                prop_assert!(held.len() <= 6);
                for who in 0..5 {
                    prop_assert!(held.iter().filter(|(other, _)| *other == who).count() <= 2);
                }
            }
            drop(held);
            prop_assert!(seats.taken().by.is_empty(), "nothing is remembered of who left");
        }
    }
}
