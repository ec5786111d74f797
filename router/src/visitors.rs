//! How many connections each client address and each caller has, so that one alone can't take them all.
//! Each worker counts its own; there are never more entries than connections.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::rc::Rc;

/// Counts connections by what they share.
#[derive(Debug)]
pub(crate) struct Visitors<K: Eq + Hash>(Rc<RefCell<HashMap<K, usize>>>);

impl<K: Eq + Hash> Default for Visitors<K> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

/// One connection that counts as long as this lives.
#[derive(Debug)]
pub(crate) struct Seat<K: Eq + Hash> {
    visitors: Rc<RefCell<HashMap<K, usize>>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Visitors<K> {
    /// Counts one more, unless there are `most`.
    pub(crate) fn enter(&self, key: K, most: usize) -> Option<Seat<K>> {
        let mut counts = self.0.borrow_mut();
        let count = counts.get(&key).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        counts.insert(key.clone(), count + 1);
        let visitors = Rc::clone(&self.0);
        Some(Seat { visitors, key })
    }
}

impl<K: Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut counts = self.visitors.borrow_mut();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Who may have many addresses counts as one: with IPv6 everybody has the whole /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_may_come_as_there_are_seats_and_nothing_is_left_of_those_that_went() {
        let visitors = Visitors::default();
        let seats: Vec<_> = (0..3).map_while(|_| visitors.enter("a", 2)).collect();
        assert_eq!(seats.len(), 2);
        assert!(visitors.enter("a", 2).is_none() && visitors.enter("b", 2).is_some());
        drop(seats);
        assert!(visitors.0.borrow().is_empty(), "bounded by the connections");
        assert!(visitors.enter("a", 2).is_some());
    }

    #[test]
    fn a_refused_one_leaves_no_entry() {
        let visitors = Visitors::default();
        assert!(visitors.enter("a", 0).is_none());
        assert!(visitors.0.borrow().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_mapped_address_is_what_it_stands_for() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2:ffff::1"), "2001:db8:1:2::");
        assert_ne!(of("2001:db8:1:3::1"), of("2001:db8:1:2::1"));
        assert_eq!(
            (of("::ffff:10.0.0.1"), of("10.0.0.2")),
            ("10.0.0.1".into(), "10.0.0.2".into())
        );
    }
}
