//! In which bucket somebody falls: one function for flags, experiments and weights of versions, so that
//! they can agree.

/// MurmurHash3, x86, 32 bits, seed 0: fast, evenly spread, and the same in every language.
///
/// ```
/// assert_eq!(hydrant_contracts::bucket::murmur3(b"flag-user"), 2_410_693_464);
/// ```
pub fn murmur3(bytes: &[u8]) -> u32 {
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = 0;
    for block in blocks {
        hash ^= scramble(u32::from_le_bytes(*block));
        hash = u32::rotate_left(hash, 13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    hash ^= scramble(u32::from_le_bytes(last));
    hash ^= bytes.len() as u32;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

fn scramble(block: u32) -> u32 {
    block
        .wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593)
}
