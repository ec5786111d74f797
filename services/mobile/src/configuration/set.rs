/// The most layers of a configuration.
pub(crate) const MAX_LAYERS: usize = 256;

/// Which layers, by their places in the order of merging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LayerSet([u64; MAX_LAYERS / 64]);

impl LayerSet {
    pub(crate) fn insert(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    pub(crate) fn contains(&self, place: usize) -> bool {
        self.0[place / 64] & (1 << (place % 64)) != 0
    }

    /// Those that are in both.
    #[must_use]
    pub(crate) fn and(mut self, other: Self) -> Self {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own &= other;
        }
        self
    }

    /// Those that are in one of them.
    #[must_use]
    pub(crate) fn or(mut self, other: Self) -> Self {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own |= other;
        }
        self
    }

    /// The places, the lowest first.
    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = usize> {
        (0..MAX_LAYERS).filter(move |place| self.contains(*place))
    }
}

impl FromIterator<usize> for LayerSet {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        let mut set = Self::default();
        places.into_iter().for_each(|place| set.insert(place));
        set
    }
}
